import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GraphBuilder } from '@frame-thinker/graph';
import type { InferenceSession } from 'onnxruntime-node';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { buildModel } from './model.ts';
import { loadOnnxRuntime, type Ort } from './runtime.ts';
import { SessionCache } from './session-cache.ts';

const scratch = mkdtempSync(join(tmpdir(), 'session-cache-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const options: InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  graphOptimizationLevel: 'all',
  logSeverityLevel: 4,
};

/** Fusable nodes around a constant of 40 kB. */
function model(scale = 1): Uint8Array {
  const g = new GraphBuilder();
  const x = g.input('x', 'float32', [8, 100]);
  const values = Float32Array.from({ length: 10_000 }, (_, i) => scale * Math.sin(i));
  const w = g.constant(values, [100, 100]);
  const y = g.matmul(x, w);
  g.output('y', g.softmax(g.mul(y, g.sigmoid(y))));
  return buildModel(g.build(), { label: 'test' }).bytes;
}

const ort = await loadOnnxRuntime();
let folder = '';
let made: (string | undefined)[] = [];
/** Keeps the optimisation level of each session that is asked for. */
const watched = {
  env: ort.env,
  InferenceSession: {
    create: (bytes: Uint8Array, asked: InferenceSession.SessionOptions) => {
      made.push(asked.graphOptimizationLevel);
      return ort.InferenceSession.create(bytes, asked);
    },
  },
} as unknown as Ort;
beforeEach(() => {
  folder = mkdtempSync(join(scratch, 'folder-'));
  made = [];
});

const input = Float32Array.from({ length: 800 }, (_, i) => Math.cos(i));
async function outputs(cache: SessionCache, bytes = model()): Promise<Float32Array> {
  const session = await cache.open({ bytes, options });
  const results = await session.run({ [session.inputNames[0]!]: new ort.Tensor('float32', input, [8, 100]) });
  await session.release();
  return results[session.outputNames[0]!]!.data as Float32Array;
}
const open = (): SessionCache => new SessionCache(watched, folder);
const files = (): string[] => readdirSync(folder);

describe('the cache of optimised models', () => {
  it('gives the same bits from it as without it', async () => {
    const first = await outputs(open());
    expect(files()).toEqual([expect.stringMatching(/^[0-9a-f]{40}\.onnx$/)]);
    expect(await outputs(open())).toEqual(first);
    expect(made).toEqual(['all', 'disabled']);
  });

  it('has one for each model and each set of options', async () => {
    const first = await outputs(open());
    expect(await outputs(open(), model(2))).not.toEqual(first);
    await (await open().open({ bytes: model(), options: { ...options, intraOpNumThreads: 2 } })).release();
    expect(made).toEqual(['all', 'all', 'all']);
    expect(files()).toHaveLength(3);
  });

  it('makes a damaged one again', async () => {
    const first = await outputs(open());
    const file = join(folder, files()[0]!);
    const whole = readFileSync(file);
    const damaged = Buffer.from(whole);
    damaged[damaged.length >> 1]! ^= 1;
    for (const bytes of [damaged, whole.subarray(0, 100), Buffer.alloc(0)]) {
      writeFileSync(file, bytes);
      expect(await outputs(open())).toEqual(first);
      expect(readFileSync(file)).toEqual(whole);
    }
    expect(made).toEqual(['all', 'all', 'all', 'all']);
  });

  it('does without a folder that cannot be made', async () => {
    const first = await outputs(open());
    writeFileSync(join(folder, 'file'), '');
    expect(await outputs(new SessionCache(watched, join(folder, 'file', 'below')))).toEqual(first);
    expect(made).toEqual(['all', 'all']);
  });

  it('says what is wrong with a model, and leaves nothing', async () => {
    const broken = Uint8Array.from({ length: 40_000 }, (_, i) => i % 251);
    await expect(open().open({ bytes: broken, options })).rejects.toThrow(/protobuf|model/i);
    expect(files()).toEqual([]);
  });

  it('drops what was used least recently from a full folder', async () => {
    const size = 2 ** 27;
    for (const [i, name] of ['oldest', 'older', 'old'].entries()) {
      writeFileSync(join(folder, name), Buffer.alloc(name === 'old' ? 1000 : size));
      utimesSync(join(folder, name), 1e9 + i, 1e9 + i);
    }
    await outputs(open());
    expect(files().filter((name) => !name.endsWith('.onnx'))).toEqual(['old', 'older']);
  });
});
