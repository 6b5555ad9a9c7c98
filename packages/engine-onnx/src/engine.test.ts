import { InputError } from '@frame-thinker/core';
import { type Engine, GraphBuilder, type Tensor } from '@frame-thinker/graph';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOnnxEngine } from './engine.ts';
import { loadOnnxRuntime, type Provider, worksInChild } from './runtime.ts';

const float = (shape: readonly number[], at: (i: number) => number = Math.sin): Tensor => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => at(i)),
});

describe('the onnx engine', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createOnnxEngine({ threads: 2, provider: 'cpu' });
  });
  afterAll(() => engine.release());

  it('says which provider it runs on', () => {
    expect(engine.capabilities).toEqual({ name: 'onnx', provider: 'cpu', fp16: false, residentParameters: false });
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
