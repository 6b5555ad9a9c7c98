import { InputError } from '@frame-thinker/core';
import { type Engine, type Graph, GraphBuilder, interpret, type ParameterSet, type Tensor } from '@frame-thinker/graph';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOnnxEngine } from './engine.ts';
import { loadOnnxRuntime, type Provider, worksInChild } from './runtime.ts';

const float = (shape: readonly number[], at: (i: number) => number = Math.sin): Tensor => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => at(i)),
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

const IDS: Tensor = { dtype: 'int32', shape: [4], data: Int32Array.of(0, 10, 3, 3) };

describe('the onnx engine', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createOnnxEngine({ threads: 2, provider: 'cpu' });
  });
  afterAll(() => engine.release());

  it('says which provider it runs on', () => {
    expect(engine.capabilities).toEqual({ name: 'onnx', provider: 'cpu', fp16: false, residentParameters: false });
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
    const before = [await fed.run({ ids: IDS }), await frozen.run({ ids: IDS })].map((r) => r.logits!.data);
    set.gradients.accumulate('square', new Float32Array(36).fill(1));
    set.adamw({ lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxNorm: 1 });
    const after = [await fed.run({ ids: IDS }), await frozen.run({ ids: IDS })].map((r) => r.logits!.data);
    expect(after[0]).not.toEqual(before[0]);
    expect(after[1]).toEqual(before[1]);
    await fed.release();
    await frozen.release();
  });

  it('repeats itself bit for bit, duplicate scatter indices included, on two threads', async () => {
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
      ids: { dtype: 'int32' as const, shape: [512], data: Int32Array.from({ length: 512 }, (_, i) => (i * i) % 8) },
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
    const graph = g.build();
    const inputs = {
      past: float([2, 0, 3]),
      now: float([2, 2, 3]),
      ids: { dtype: 'int32' as const, shape: [0], data: new Int32Array() },
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
    for (const [name, value] of Object.entries({ x, mask, again: x, y, twice: y, c: g.scalar(3) }))
      g.output(name, value);
    const program = await engine.compile(g.build());
    const given = float([2]);
    const results = await program.run({ x: given, mask: { dtype: 'bool', shape: [2], data: Uint8Array.of(0, 1) } });
    expect(results.x!.data).toEqual(given.data);
    expect(results.x!.data.buffer).not.toBe(given.data.buffer);
    expect(results.again!.data.buffer).not.toBe(results.x!.data.buffer);
    expect(results.twice!.data).toEqual(results.y!.data);
    expect(results.twice!.data.buffer).not.toBe(results.y!.data.buffer);
    expect(results.mask).toEqual({ dtype: 'bool', shape: [2], data: Uint8Array.of(0, 1) });
    expect(results.c).toEqual({ dtype: 'float32', shape: [], data: Float32Array.of(3) });
    expect(Object.keys(await program.run({ x: given, mask: results.mask! }, ['c']))).toEqual(['c']);
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
    await expect(engine.compile(tiedGraph(), { label: 'decode' })).rejects.toThrow(/decode: parameter table is not in/);
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

  it('names the program when the runtime refuses', async () => {
    const set = tiedParameters(engine);
    const program = await engine.compile(tiedGraph(), { parameters: set, label: 'decode' });
    const ids: Tensor = { ...IDS, data: Int32Array.of(0, 1, 2, 99) };
    await expect(program.run({ ids })).rejects.toThrow(/^decode: .*99/s);
    await program.release();
  });

  it('gives memory back', async () => {
    const shape = [1024, 1024];
    const cycle = async (): Promise<void> => {
      const set = engine.parameters([{ name: 'w', shape }]);
      set.write('w', new Float32Array(1024 * 1024).fill(1e-3));
      const g = new GraphBuilder();
      g.output('y', g.matmul(g.input('x', 'float32', [16, 1024]), g.parameter('w', shape), { transposeB: true }));
      const program = await engine.compile(g.build(), { parameters: set, frozen: true });
      await program.run({ x: float([16, 1024]) });
      await program.release();
      set.release();
    };
    for (let i = 0; i < 2; i++) await cycle();
    const before = process.memoryUsage().rss;
    // One cycle holds some 30 MB (weights, model, session): kept, these would be 300 MB.
    for (let i = 0; i < 10; i++) await cycle();
    expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(150);
  });
});

describe('making an engine', () => {
  it.each(['webgpu', 'cuda'] as const)('works on %s, or refuses in one line', async (provider) => {
    try {
      const engine = await createOnnxEngine({ threads: 1, provider });
      expect(engine.capabilities.provider).toBe(provider);
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
      expect((error as Error).message).toMatch(
        new RegExp(`^provider ${provider} does not work here: [^\\n]+; use cpu or auto$`),
      );
    }
  });

  it('takes the cpu for auto where no GPU provider works', async () => {
    const engine = await createOnnxEngine({ threads: 1, provider: 'auto' });
    const { provider } = engine.capabilities;
    expect(['cpu', 'webgpu', 'cuda']).toContain(provider);
    const g = new GraphBuilder();
    g.output('y', g.neg(g.input('x', 'float32', [1])));
    const program = await engine.compile(g.build());
    expect((await program.run({ x: float([1], () => 2) })).y!.data[0]).toBe(-2);
    await engine.release();
    await expect(program.run({ x: float([1]) })).rejects.toThrow('after release');
  });

  it('probes providers in a process of its own', () => {
    expect(worksInChild('cpu')).toBe(true);
    expect(worksInChild('no such provider' as Provider)).toBe(false);
  });

  it('says what to do when onnxruntime-node is missing', async () => {
    const missing = loadOnnxRuntime(() => Promise.reject(new Error("Cannot find package 'onnxruntime-node'\nat x")));
    await expect(missing).rejects.toThrow(InputError);
    await expect(missing).rejects.toThrow(/^onnxruntime-node does not load \([^\n]*\); install it with [^\n]*$/);
  });

  it('refuses a thread count that is none', async () => {
    await expect(createOnnxEngine({ threads: 0, provider: 'cpu' })).rejects.toThrow(/threads .* not 0/);
  });
});
