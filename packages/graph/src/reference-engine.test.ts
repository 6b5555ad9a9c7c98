import { describe, expect, it } from 'vitest';
import { GraphBuilder } from './builder.ts';
import { erf } from './interpreter/erf.ts';
import { interpret } from './interpreter/interpret.ts';
import { referenceEngine } from './reference-engine.ts';
import type { Tensor } from './types.ts';

const float = (data: number[], shape = [data.length]): Tensor => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from(data),
});

describe('the interpreter', () => {
  it('refuses missing, ill-shaped and unknown names, and indices out of range', () => {
    const g = new GraphBuilder();
    const table = g.parameter('embed', [3, 2]);
    g.output(
      'y',
      g.scope('embedding', () => g.gatherRows(table, g.input('ids', 'int32', [2]))),
    );
    const graph = g.build();
    const embed = float([1, 2, 3, 4, 5, 6], [3, 2]);
    const ids = (...data: number[]): Tensor => ({ dtype: 'int32', shape: [data.length], data: Int32Array.from(data) });
    expect([...interpret(graph, { ids: ids(2, 0) }, { embed }).y!.data]).toEqual([5, 6, 1, 2]);
    expect(() => interpret(graph, { ids: ids(2, 3) }, { embed })).toThrow(
      "scope 'embedding'): index 3 at 1, must be in [0, 3)",
    );
    expect(() => interpret(graph, { ids: ids(-1, 0) }, { embed })).toThrow('index -1 at 0');
    expect(() => interpret(graph, { ids: ids(1) }, { embed })).toThrow('input ids: is int32 [1], must be int32 [2]');
    expect(() => interpret(graph, { ids: ids(1, 1) })).toThrow('parameter embed: not given');
    expect(() => interpret(graph, { ids: ids(1, 1) }, { embed }, ['z'])).toThrow('output z: the graph has y');
  });

  it('computes erf to double precision', () => {
    // Values of erf from the Digital Library of Mathematical Functions, table 7.
    for (const [x, y] of [
      [0, 0],
      [0.5, 0.5204998778130465],
      [1, 0.8427007929497149],
      [2, 0.9953222650189527],
      [3, 0.9999779095030014],
      [3.5, 0.9999992569016276],
    ] as const) {
      expect(Math.abs(erf(x) - y)).toBeLessThan(4e-16);
      expect(erf(-x)).toBe(-erf(x));
    }
    expect([erf(Infinity), erf(-7)]).toEqual([1, -1]);
    expect(erf(Number.NaN)).toBeNaN();
  });

  it('keeps softmax finite at large inputs', () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [3]);
    g.output('p', g.softmax(x));
    g.output('l', g.logSoftmax(x));
    const { p, l } = interpret(g.build(), { x: float([1000, 1000, -Infinity]) });
    expect([...p!.data]).toEqual([0.5, 0.5, 0]);
    expect([...l!.data]).toEqual([-Math.LN2, -Math.LN2, -Infinity].map((v) => expect.closeTo(v, 12)));
  });
});

describe('the reference engine', () => {
  it('binds parameters at each run, unless frozen', async () => {
    const g = new GraphBuilder();
    g.output('y', g.mul(g.input('x', 'float32', [2]), g.parameter('w', [2])));
    const engine = referenceEngine();
    const parameters = engine.parameters([{ name: 'w', shape: [2] }]);
    parameters.write('w', Float32Array.of(1, 2));
    const live = await engine.compile(g.build(), { parameters });
    const frozen = await engine.compile(g.build(), { parameters, frozen: true });
    const { version } = parameters;
    parameters.write('w', Float32Array.of(5, 7));
    expect(parameters.version).toBeGreaterThan(version);
    expect([...(await live.run({ x: float([1, 1]) })).y!.data]).toEqual([5, 7]);
    expect([...(await frozen.run({ x: float([1, 1]) })).y!.data]).toEqual([1, 2]);
    await expect(engine.compile(g.build(), { frozen: true, label: 'head' })).rejects.toThrow(
      'head: parameter w needs options.parameters',
    );
  });

  it('takes AdamW steps as torch does', () => {
    // torch.optim.AdamW(lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01) after clip_grad_norm_(1.0), on
    // p = [1, −2], gradients [3, 4] then [0.3, −0.4]: the first step moves each weight by lr against its sign.
    const set = referenceEngine().parameters([
      { name: 'w', shape: [1] },
      { name: 'b', shape: [1], decay: false },
    ]);
    const options = { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 } as const;
    set.write('w', Float32Array.of(1));
    set.write('b', Float32Array.of(-2));
    set.gradients.accumulate('w', Float32Array.of(1));
    set.gradients.accumulate('w', Float32Array.of(2));
    set.gradients.accumulate('b', Float32Array.of(4));
    expect(set.adamw(options)).toEqual({ gradNorm: 5, applied: true });
    expect(set.read('w')[0]).toBeCloseTo(1 * (1 - 0.001) - 0.1, 6);
    expect(set.read('b')[0]).toBeCloseTo(-2 - 0.1, 6);
    expect(set.read('w', 'exp_avg')[0]).toBeCloseTo(0.1 * 0.6, 6);
    expect(set.read('b', 'exp_avg_sq')[0]).toBeCloseTo(0.001 * 0.64, 8);
    expect([...set.gradients.read()]).toEqual([0, 0]);
    expect(set.step).toBe(1);

    set.gradients.write(Float64Array.of(0.3, -0.4));
    set.adamw(options);
    const m = (0.9 * 0.06 + 0.1 * 0.3) / (1 - 0.9 ** 2);
    const v = (0.999 * 0.00036 + 0.001 * 0.09) / (1 - 0.999 ** 2);
    expect(set.read('w')[0]).toBeCloseTo(0.899 * 0.999 - (0.1 * m) / Math.sqrt(v), 5);
  });

  it('skips a step whose gradient is not finite, and clears it', () => {
    const set = referenceEngine().parameters([{ name: 'w', shape: [1] }]);
    set.gradients.accumulate('w', Float32Array.of(Number.NaN));
    const { gradNorm, applied } = set.adamw({ lr: 1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxNorm: 1 });
    expect([gradNorm, applied, set.step, set.read('w')[0], set.gradients.get('w')[0]]).toEqual([
      Number.NaN,
      false,
      0,
      0,
      0,
    ]);
  });

  it('refuses unknown names and wrong lengths', () => {
    const set = referenceEngine().parameters([{ name: 'w', shape: [2] }]);
    expect(() => set.write('v', Float32Array.of(1))).toThrow('parameter v: not in this set');
    expect(() => set.write('w', Float32Array.of(1))).toThrow('parameter w: 1 values, must be 2');
    expect(() => set.gradients.accumulate('w', Float32Array.of(1))).toThrow('gradient of w: 1 values, must be 2');
    expect(() => referenceEngine().parameters([set.specs[0]!, set.specs[0]!])).toThrow('specified twice');
  });
});
