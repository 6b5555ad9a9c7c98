import { InputError } from '@frame-thinker/core';
import { GraphError, type ParameterSpec, sizeOf } from '@frame-thinker/graph';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createInferenceParameters } from './inference-parameters.ts';
import { createTrainingParameters, TRAINABLE_LIMIT } from './training-parameters.ts';

interface Moments {
  p: Float64Array;
  m: Float64Array;
  v: Float64Array;
}
type Options = { lr: number; betas: [number, number]; eps: number; weightDecay: number; maxNorm: number };

/** torch.optim.AdamW's single-tensor formula in float64. */
function torchAdamw({ p, m, v }: Moments, gradient: Float64Array, step: number, decay: boolean, o: Options): void {
  const [beta1, beta2] = o.betas;
  for (let i = 0; i < p.length; i++) {
    const g = gradient[i]!;
    if (decay) p[i]! *= 1 - o.lr * o.weightDecay;
    m[i] = beta1 * m[i]! + (1 - beta1) * g;
    v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
    const denominator = Math.sqrt(v[i]!) / Math.sqrt(1 - beta2 ** step) + o.eps;
    p[i]! -= (o.lr / (1 - beta1 ** step)) * (m[i]! / denominator);
  }
}

/** torch.nn.utils.clip_grad_norm_ over all gradients at once; returns the norm. */
function clip(gradients: Float64Array[], maxNorm: number): number {
  const norm = Math.sqrt(gradients.reduce((sum, g) => sum + g.reduce((s, x) => s + x * x, 0), 0));
  const factor = Math.min(1, maxNorm / (norm + 1e-6));
  for (const g of gradients) for (let i = 0; i < g.length; i++) g[i]! *= factor;
  return norm;
}

function numbers(length: number, seed: number): Float32Array {
  let state = seed * 2654435761 + 1;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

const SPECS: ParameterSpec[] = [
  { name: 'w', shape: [7, 5] },
  { name: 'bias', shape: [5], decay: false },
  { name: 'scalar', shape: [] },
  { name: 'norm', shape: [33], decay: false },
  { name: 'head', shape: [16, 3], decay: true },
];

describe('training parameters', () => {
  it('steps as torch.optim.AdamW with clip_grad_norm_ does', () => {
    fc.assert(
      fc.property(
        fc.record({
          seed: fc.integer({ min: 1, max: 1e6 }),
          lr: fc.constantFrom(1e-5, 1e-3, 0.1),
          weightDecay: fc.constantFrom(0, 0.01, 0.5),
          maxNorm: fc.constantFrom(0.1, 1, 1e9),
          scale: fc.constantFrom(1e-3, 1, 1e3),
        }),
        ({ seed, lr, weightDecay, maxNorm, scale }) => {
          const options: Options = { lr, betas: [0.9, 0.999], eps: 1e-8, weightDecay, maxNorm };
          const set = createTrainingParameters(SPECS);
          const expected = SPECS.map(({ name, shape }, i): Moments => {
            const start = numbers(sizeOf(shape), seed + i);
            set.write(name, start);
            return {
              p: Float64Array.from(start),
              m: new Float64Array(start.length),
              v: new Float64Array(start.length),
            };
          });
          for (let step = 1; step <= 5; step++) {
            const gradients = SPECS.map(({ name, shape }, i) => {
              const sum = new Float64Array(sizeOf(shape));
              for (const part of [1, 2]) {
                const g = numbers(sum.length, seed * 31 + step * 101 + i * 7 + part).map((x) => x * scale);
                set.gradients.accumulate(name, g);
                for (let k = 0; k < g.length; k++) sum[k]! += g[k]!;
              }
              return sum;
            });
            const norm = clip(gradients, maxNorm);
            const result = set.adamw(options);
            expect(result.applied).toBe(true);
            expect(result.gradNorm).toBeCloseTo(norm, 9);
            for (const [i, moments] of expected.entries())
              torchAdamw(moments, gradients[i]!, step, SPECS[i]!.decay !== false, options);
          }
          for (const [i, { name }] of SPECS.entries())
            for (const [kind, key] of [
              ['weight', 'p'],
              ['exp_avg', 'm'],
              ['exp_avg_sq', 'v'],
            ] as const) {
              const got = set.read(name, kind);
              const want = expected[i]![key];
              // Float32 rounding of the value, and of the five updates that led to it.
              for (const [k, x] of got.entries())
                expect(Math.abs(x - want[k]!)).toBeLessThan(
                  2e-6 * (Math.abs(want[k]!) + (kind === 'weight' ? 5 * lr : 0)) +
                    1e-7 * scale ** (key === 'v' ? 2 : 1),
                );
            }
          expect(set.gradients.read().every((x) => x === 0)).toBe(true);
          expect(set.step).toBe(5);
        },
      ),
      { numRuns: 25 },
    );
  });

  it('continues from written moments and step as if it had not stopped', () => {
    const options: Options = { lr: 0.01, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
    const train = (set: ReturnType<typeof createTrainingParameters>, step: number): void => {
      for (const [i, { name, shape }] of SPECS.entries())
        set.gradients.accumulate(name, numbers(sizeOf(shape), step * 13 + i));
      set.adamw(options);
    };
    const [one, first, second] = [1, 2, 3].map(() => createTrainingParameters(SPECS)) as [
      ReturnType<typeof createTrainingParameters>,
      ReturnType<typeof createTrainingParameters>,
      ReturnType<typeof createTrainingParameters>,
    ];
    for (let step = 1; step <= 4; step++) train(one, step);
    for (let step = 1; step <= 2; step++) train(first, step);
    for (const { name } of SPECS) {
      second.write(name, first.read(name));
      for (const kind of ['exp_avg', 'exp_avg_sq'] as const) second.writeMoment(name, kind, first.read(name, kind));
    }
    second.step = first.step;
    for (let step = 3; step <= 4; step++) train(second, step);
    for (const { name } of SPECS) expect(second.read(name)).toEqual(one.read(name));
  });

  it('skips a step whose norm is not finite, and drops those gradients', () => {
    const set = createTrainingParameters(SPECS);
    set.write('w', numbers(35, 3));
    const [before, { version }] = [set.read('w'), set];
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      set.gradients.accumulate('w', new Float32Array(35).fill(bad));
      const result = set.adamw({ lr: 1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 1, maxNorm: 1 });
      expect(result.applied).toBe(false);
      expect(Number.isFinite(result.gradNorm)).toBe(false);
      expect(set.read('w')).toEqual(before);
      expect([set.step, set.version]).toEqual([0, version]);
      expect(set.gradients.get('w').every((x) => x === 0)).toBe(true);
    }
  });

  it('keeps gradient sums in float64, flat in the order of the specs', () => {
    const set = createTrainingParameters(SPECS);
    set.gradients.accumulate('bias', Float32Array.of(1e8, 1, 2, 3, 4));
    set.gradients.accumulate('bias', Float32Array.of(0.125, 1, 1, 1, 1));
    expect(Array.from(set.gradients.get('bias'))).toEqual([1e8 + 0.125, 2, 3, 4, 5]);
    const flat = set.gradients.read();
    expect(flat.length).toBe(SPECS.reduce((sum, { shape }) => sum + sizeOf(shape), 0));
    expect(flat[35]).toBe(1e8 + 0.125);
    const other = createTrainingParameters(SPECS);
    other.gradients.write(flat.map((x, i) => x + i));
    expect(other.gradients.read()).toEqual(flat.map((x, i) => x + i));
    other.gradients.zero();
    expect(other.gradients.read().some((x) => x !== 0)).toBe(false);
  });

  it('counts versions and gives copies', () => {
    const set = createTrainingParameters(SPECS);
    const { version } = set;
    set.write('scalar', Float32Array.of(4));
    expect(set.version).toBeGreaterThan(version);
    set.read('scalar').fill(9);
    expect(Array.from(set.read('scalar'))).toEqual([4]);
  });

  it('names what does not fit', () => {
    const set = createTrainingParameters(SPECS);
    expect(() => set.write('nope', new Float32Array(1))).toThrow(/parameter nope: not in/);
    expect(() => set.write('w', new Float32Array(3))).toThrow(/parameter w: 3 values for \[7, 5\]/);
    expect(() => set.gradients.accumulate('w', new Float32Array(3))).toThrow(/parameter w: 3 values/);
    expect(() => set.gradients.write(new Float64Array(3))).toThrow(/3 values/);
    expect(() => createTrainingParameters([SPECS[0]!, SPECS[0]!])).toThrow(/parameter w: given twice/);
    set.release();
    expect(() => set.read('w')).toThrow(/after release/);
  });

  it('refuses more than it can train in one line, at once', () => {
    const specs = [{ name: 'w', shape: [TRAINABLE_LIMIT / 1000, 1001] }];
    expect(() => createTrainingParameters(specs)).toThrow(InputError);
    expect(() => createTrainingParameters(specs)).toThrow(/^training 200 M parameters: [^\n]*up to 200 M;[^\n]*$/);
  });
});

describe('inference parameters', () => {
  it('hold any number of weights and take memory as they are written', () => {
    const set = createInferenceParameters([
      { name: 'huge', shape: [1_000_000, 1_000_000] },
      { name: 'w', shape: [2] },
    ]);
    expect(() => set.read('huge')).toThrow(/parameter huge: was never written/);
    set.write('w', Float32Array.of(1, 2));
    const view = set.view('w');
    set.write('w', Float32Array.of(3, 4));
    expect(Array.from(view)).toEqual([3, 4]);
    expect(set.version).toBe(2);
  });

  it('refuse what training needs', () => {
    const set = createInferenceParameters([{ name: 'w', shape: [2] }]);
    const adamw = { lr: 1, betas: [0.9, 0.999] as const, eps: 1e-8, weightDecay: 0, maxNorm: 1 };
    expect(() => set.adamw(adamw)).toThrow(GraphError);
    expect(() => set.gradients.accumulate('w', new Float32Array(2))).toThrow(/training: false/);
    expect(() => set.read('w', 'exp_avg')).toThrow(/training: false/);
  });
});
