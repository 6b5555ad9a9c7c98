/** @file What every engine must do: each op, forward and gradient, as the float64 interpreter does it, and the contract of Engine. */
import {
  compareOutputs,
  conformanceCases,
  deviation,
  type Engine,
  type Graph,
  GraphBuilder,
  interpret,
  type ParameterSet,
  type Tensor,
} from '@frame-thinker/graph';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TestedEngine } from './engines.ts';

/** Float32 kernels (erf and tanh are polynomials) against float64. */
const TOLERANCE = 2e-5;

const float = (shape: readonly number[], at: (i: number) => number = Math.sin): Tensor => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => at(i)),
});
const int = (shape: readonly number[], at: (i: number) => number): Tensor => ({
  dtype: 'int32',
  shape,
  data: Int32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => at(i)),
});

/** Two layers with a tied table: gathered from, and multiplied with transposed; and a weight used both ways round. */
function tiedGraph(): Graph {
  const g = new GraphBuilder();
  const table = g.parameter('table', [11, 6]);
  const square = g.parameter('square', [6, 6]);
  const x = g.gatherRows(table, g.input('ids', 'int32', [4]));
  const h = g.silu(g.matmul(g.matmul(x, square, { transposeB: true }), square));
  g.output('logits', g.matmul(h, table, { transposeB: true }));
  return g.build();
}

function tiedParameters(engine: Engine, options?: { training?: boolean }): ParameterSet {
  const specs = [
    { name: 'table', shape: [11, 6] },
    { name: 'square', shape: [6, 6] },
  ];
  const set = engine.parameters(specs, options);
  for (const { name, shape } of specs) set.write(name, float(shape).data as Float32Array);
  return set;
}

const IDS: Tensor = int([4], (i) => [0, 10, 3, 3][i]!);

export function describeEngine(tested: TestedEngine): void {
  describe(`the ${tested.title} engine`, () => {
    let engine: Engine;
    beforeAll(async () => {
      if (tested.missing() === undefined) engine = await tested.open();
    });
    beforeEach(tested.require);
    afterAll(() => engine?.release());

    describe('conforms to the float64 interpreter', () => {
      for (const test of conformanceCases(1))
        it(test.name, async () => {
          const { maxRel, output } = await deviation(engine, test);
          expect(maxRel, `output ${output}`).toBeLessThan(TOLERANCE);
        });

      // The cases above are too small for several threads, and for the kernels that are chosen by size.
      it('at sizes that are split between threads', async () => {
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
        const inputs = {
          x: float([8, 40, 48], (i) => Math.sin(i * 12.9898) * 2),
          ids: int([8, 40], (i) => (i * i) % 7),
        };
        const graph = g.build();
        const program = await engine.compile(graph);
        const { maxRel, output } = compareOutputs(await program.run(inputs), interpret(graph, inputs));
        expect(maxRel, `output ${output}`).toBeLessThan(TOLERANCE);
        await program.release();
      });
    });

    it('gives the same with frozen weights, with and without the training memory, and as the interpreter', async () => {
      const parameters = tiedParameters(engine);
      const graph = tiedGraph();
      const weights = Object.fromEntries(
        parameters.specs.map(({ name, shape }) => [
          name,
          { dtype: 'float32' as const, shape, data: parameters.read(name) },
        ]),
      );
      const reference = interpret(graph, { ids: IDS }, weights).logits!;
      const sets = [parameters, tiedParameters(engine, { training: false })];
      for (const set of sets)
        for (const frozen of [false, true]) {
          const program = await engine.compile(graph, { parameters: set, frozen });
          const { logits } = await program.run({ ids: IDS });
          expect(logits!.shape).toEqual([4, 11]);
          for (const [i, x] of reference.data.entries()) expect(logits!.data[i]).toBeCloseTo(x, 5);
          await program.release();
        }
    });

    it('sees new weights without a new program, unless they were frozen', async () => {
      const set = tiedParameters(engine);
      const fed = await engine.compile(tiedGraph(), { parameters: set });
      const frozen = await engine.compile(tiedGraph(), { parameters: set, frozen: true });
      const logits = async () =>
        [await fed.run({ ids: IDS }), await frozen.run({ ids: IDS })].map((r) => r.logits!.data);
      const before = await logits();
      set.gradients.accumulate('square', new Float32Array(36).fill(1));
      set.adamw({ lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxNorm: 1 });
      const stepped = await logits();
      expect(stepped[0]).not.toEqual(before[0]);
      expect(stepped[1]).toEqual(before[1]);
      set.write('table', new Float32Array(66));
      const written = await logits();
      expect([...new Set(written[0])]).toEqual([0]);
      expect(written[1]).toEqual(before[1]);
      await fed.release();
      await frozen.release();
    });

    it('repeats itself bit for bit, duplicate scatter indices included', async () => {
      const g = new GraphBuilder();
      const x = g.input('x', 'float32', [512, 64]);
      const w = g.input('w', 'float32', [64, 64]);
      const h = g.matmul(x, w, { transposeB: true });
      g.output('rows', g.scatterAddRows(h, g.input('ids', 'int32', [512]), 8));
      g.output('columns', g.sum(g.exp(h), [0]));
      const program = await engine.compile(g.build());
      const inputs = {
        x: float([512, 64]),
        w: float([64, 64], (i) => Math.cos(i) / 8),
        ids: int([512], (i) => (i * i) % 8),
      };
      const first = await program.run(inputs);
      for (let i = 0; i < 10; i++) expect(await program.run(inputs)).toEqual(first);
      await program.release();
    });

    it('runs graphs with values without elements', async () => {
      const g = new GraphBuilder();
      const past = g.input('past', 'float32', [2, 0, 3]);
      const now = g.input('now', 'float32', [2, 2, 3]);
      const ids = g.input('ids', 'int32', [0]);
      g.output('all', g.concat([past, now], 1));
      g.output('nothing', g.exp(past));
      g.output('sums', g.sum(past, [1]));
      g.output('product', g.matmul(past, past, { transposeA: true }));
      g.output('padded', g.pad(past, 1, 1, 1));
      g.output('table', g.scatterAddRows(g.gatherRows(g.constant(new Float32Array(6), [3, 2]), ids), ids, 4));
      g.output('columns', g.scatterAddLast(g.input('none', 'float32', [2, 0]), g.input('at', 'int32', [2, 0]), 3));
      const graph = g.build();
      const inputs = {
        past: float([2, 0, 3]),
        now: float([2, 2, 3]),
        ids: int([0], () => 0),
        none: float([2, 0]),
        at: int([2, 0], () => 0),
      };
      const program = await engine.compile(graph);
      const results = await program.run(inputs);
      for (const [name, { shape, data }] of Object.entries(interpret(graph, inputs))) {
        expect(results[name]!.shape).toEqual(shape);
        expect(Array.from(results[name]!.data)).toEqual(Array.from(data).map(Math.fround));
      }
      await program.release();
    });

    it('gives outputs that are inputs, constants, bools or named twice in memory of their own', async () => {
      const g = new GraphBuilder();
      const x = g.input('x', 'float32', [2]);
      const mask = g.input('mask', 'bool', [2]);
      const y = g.exp(x);
      const none = g.input('none', 'float32', [0]);
      for (const [name, value] of Object.entries({ x, mask, again: x, y, twice: y, c: g.scalar(3) }))
        g.output(name, value);
      g.output('shaped', g.reshape(x, [2, 1]));
      g.output('alone', g.concat([none, x], 0));
      const program = await engine.compile(g.build());
      const given = float([2]);
      const inputs = {
        x: given,
        none: float([0]),
        mask: { dtype: 'bool' as const, shape: [2], data: Uint8Array.of(0, 1) },
      };
      const results = await program.run(inputs);
      for (const name of ['x', 'again', 'shaped', 'alone']) {
        expect(results[name]!.data, name).toEqual(given.data);
        expect(results[name]!.data.buffer, name).not.toBe(given.data.buffer);
      }
      expect(results.again!.data.buffer).not.toBe(results.x!.data.buffer);
      expect(results.twice!.data).toEqual(results.y!.data);
      expect(results.twice!.data.buffer).not.toBe(results.y!.data.buffer);
      expect(results.mask).toEqual(inputs.mask);
      expect(results.c).toEqual({ dtype: 'float32', shape: [], data: Float32Array.of(3) });
      results.c!.data[0] = 4;
      expect(await program.run(inputs, ['c'])).toEqual({
        c: { dtype: 'float32', shape: [], data: Float32Array.of(3) },
      });
      await program.release();
    });

    it('names the input, output or parameter that does not fit', async () => {
      const set = tiedParameters(engine);
      const program = await engine.compile(tiedGraph(), { parameters: set, label: 'decode' });
      await expect(program.run({})).rejects.toThrow('decode: input ids is missing; it is int32 [4]');
      await expect(program.run({ ids: { ...IDS, shape: [2, 2] } })).rejects.toThrow(
        'decode: input ids must be int32 [4], is int32 [2, 2]',
      );
      await expect(program.run({ ids: float([4]) })).rejects.toThrow(
        'decode: input ids must be int32 [4], is float32 [4]',
      );
      await expect(program.run({ ids: { ...IDS, data: new Int32Array(3) } })).rejects.toThrow(
        /input ids .* of 4, .* of 3/,
      );
      await expect(program.run({ ids: IDS, idz: IDS })).rejects.toThrow('decode: no input idz; it takes ids');
      await expect(program.run({ ids: IDS }, ['logit'])).rejects.toThrow('decode: no output logit; it makes logits');
      await expect(engine.compile(tiedGraph(), { label: 'decode' })).rejects.toThrow(
        /decode: parameter table is not in/,
      );
      const other = engine.parameters([
        { name: 'table', shape: [11, 6] },
        { name: 'square', shape: [36] },
      ]);
      await expect(engine.compile(tiedGraph(), { parameters: other })).rejects.toThrow(
        /parameter square is \[36\], the graph has it as \[6, 6\]/,
      );
      await program.release();
      await expect(program.run({ ids: IDS })).rejects.toThrow('decode: run after release');
      await program.release();
    });

    it('names op, node and scope of an op it cannot lower', async () => {
      const g = new GraphBuilder();
      g.scope('layers.3', () => g.output('y', g.exp(g.input('x', 'float32', [2]))));
      const graph = g.build();
      const strange = {
        ...graph,
        nodes: graph.nodes.map((node) => (node.op === 'exp' ? { ...node, op: 'erfc' } : node)),
      };
      await expect(engine.compile(strange as unknown as Graph)).rejects.toThrow(/op erfc \(node 1, in layers\.3\)/);
    });

    it('refuses an index that is out of range, naming the program', async () => {
      const set = tiedParameters(engine);
      const program = await engine.compile(tiedGraph(), { parameters: set, label: 'decode' });
      const ids: Tensor = { ...IDS, data: Int32Array.of(0, 1, 2, 99) };
      await expect(program.run({ ids })).rejects.toThrow(/^decode: .*99/s);
      expect((await program.run({ ids: IDS })).logits!.shape).toEqual([4, 11]);
      await program.release();
    });
  });
}
