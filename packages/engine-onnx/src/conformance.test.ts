import {
  compareOutputs,
  conformanceCases,
  deviation,
  type Engine,
  GraphBuilder,
  interpret,
  type Tensor,
} from '@frame-thinker/graph';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOnnxEngine } from './engine.ts';

/** Float32 kernels (erf and tanh are polynomials) against float64. */
const TOLERANCE = 2e-5;

describe('conformance with the float64 interpreter', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createOnnxEngine({ threads: 2, provider: 'cpu' });
  });
  afterAll(() => engine.release());

  it.each(conformanceCases(1))('$name', async (test) => {
    const { maxRel, output } = await deviation(engine, test);
    expect(maxRel, `output ${output}`).toBeLessThan(TOLERANCE);
  });

  // The cases above are too small for several threads, and for the kernels that are chosen by size.
  it('holds at sizes that are split between threads', async () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [8, 40, 48]);
    const ids = g.input('ids', 'int32', [8, 40]);
    for (const keepDims of [false, true])
      for (const axes of [[0], [1, 0], [0, 1, 2], [0, 2], [2]])
        g.output(`sum ${axes} ${keepDims}`, g.sum(x, axes, keepDims));
    g.output('scattered', g.scatterAddRows(x, ids, 7));
    const rows = g.reshape(x, [320, 48]);
    g.output('product', g.matmul(rows, rows, { transposeB: true }));
    g.output('weight', g.matmul(rows, rows, { transposeA: true }));
    g.output('batched', g.matmul(x, x, { transposeA: true }));
    g.output('probabilities', g.softmax(x));
    const source = (i: number): number => Math.sin(i * 12.9898) * 2;
    const inputs: Record<string, Tensor> = {
      x: { dtype: 'float32', shape: [8, 40, 48], data: Float32Array.from({ length: 15_360 }, (_, i) => source(i)) },
      ids: { dtype: 'int32', shape: [8, 40], data: Int32Array.from({ length: 320 }, (_, i) => (i * i) % 7) },
    };
    const graph = g.build();
    const program = await engine.compile(graph);
    const { maxRel, output } = compareOutputs(await program.run(inputs), interpret(graph, inputs));
    expect(maxRel, `output ${output}`).toBeLessThan(TOLERANCE);
    await program.release();
  });
});
