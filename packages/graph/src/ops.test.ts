import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from './builder.ts';
import { GraphError } from './error.ts';
import { interpret } from './interpreter/interpret.ts';
import { OP_SAMPLES } from './op-samples.ts';
import { broadcastShapes, sizeOf } from './ops.ts';
import { SampleSource } from './sample-source.ts';

const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 });
const tensorOf = (shape: readonly number[]) => new SampleSource(sizeOf(shape)).float(shape);

describe('shape rules', () => {
  it('say the size of what the interpreter computes, for every op', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), (seed) => {
        const source = new SampleSource(seed);
        for (const sampler of Object.values(OP_SAMPLES))
          for (const sample of sampler(source)) {
            const g = new GraphBuilder();
            const y = sample.build(
              g,
              sample.tensors.map((t, i) => g.input(`x${i}`, t.dtype, t.shape)),
            );
            g.output('y', y);
            const inputs = Object.fromEntries(sample.tensors.map((t, i) => [`x${i}`, t]));
            const got = interpret(g.build(), inputs).y!;
            expect([got.data.length, got.dtype]).toEqual([sizeOf(y.shape), y.dtype]);
          }
      }),
      { numRuns: 10 },
    );
  });

  it('broadcast: commutes, and each shape broadcasts to the result', () => {
    fc.assert(
      fc.property(shapes, fc.integer(), (a, seed) => {
        const b = new SampleSource(seed).narrowed(a);
        const both = broadcastShapes(a, b);
        expect(both).toEqual(broadcastShapes(b, a));
        expect(broadcastShapes(both, a)).toEqual(both);
        expect(both).toEqual(a);
      }),
    );
  });

  it('slice and pad: a slice of a pad is the original', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
        fc.nat(2),
        fc.nat(3),
        fc.nat(3),
        (shape, pick, before, after) => {
          const axis = pick % shape.length;
          const g = new GraphBuilder();
          const x = g.input('x', 'float32', shape);
          g.output('y', g.slice(g.pad(x, axis, before, after), axis, before, before + shape[axis]!));
          const tensor = tensorOf(shape);
          expect([...interpret(g.build(), { x: tensor }).y!.data]).toEqual([...tensor.data]);
        },
      ),
    );
  });

  it('transpose: twice with the inverse permutation is the original', () => {
    fc.assert(
      fc.property(shapes, fc.integer(), (shape, seed) => {
        const permutation = new SampleSource(seed).permutation(shape.length);
        const g = new GraphBuilder();
        const y = g.transpose(g.input('x', 'float32', shape), permutation);
        g.output(
          'y',
          g.transpose(
            y,
            permutation.map((_, i) => permutation.indexOf(i)),
          ),
        );
        const tensor = tensorOf(shape);
        expect([...interpret(g.build(), { x: tensor }).y!.data]).toEqual([...tensor.data]);
      }),
    );
  });

  it('refuse what does not fit, naming op and scope', () => {
    const g = new GraphBuilder();
    const [x, y] = [g.input('x', 'float32', [2, 3]), g.input('y', 'float32', [4, 2])];
    const i = g.input('i', 'int32', [2]);
    expect(() => g.scope('layers.1', () => g.add(x, y))).toThrow(
      'op add: [2, 3] and [4, 2] do not broadcast (in layers.1)',
    );
    expect(() => g.matmul(x, y)).toThrow('inner dims 3 and 4');
    expect(() => g.exp(i)).toThrow('op exp: input 0 must be float32, is int32');
    for (const wrong of [
      () => g.slice(x, 1, 2, 2),
      () => g.reshape(x, [5]),
      () => g.concat([x, y], 0),
      () => g.sum(x, [2]),
      () => g.transpose(x, [0, 0]),
      () => g.pad(x, 2, 1, 1),
      () => g.takeAlongLast(x, i),
      () => g.rmsNorm(x, g.input('w', 'float32', [2]), 1e-6),
      () => g.rope(x, x, x, 2),
      () => g.broadcastTo(x, [3, 3]),
      () => g.input('x', 'int32', [2, 3]),
    ])
      expect(wrong).toThrow(GraphError);
  });
});
