import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf, openHfFolder } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { createLocalPool, type WorkerInit } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveState, stateOf } from '../../worker-pool/src/testing/worker-state.ts';
import { workerEntry } from './index.ts';

const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-critic-'));
const init: WorkerInit = {
  path: join(import.meta.dirname, '../../../examples/agent/base'),
  role: 'critic',
  dtype: 'float32',
  seed: 3,
  engine: { name: 'onnx', provider: 'cpu', threads: 1 },
};
const start = (changes: Partial<WorkerInit> = {}) =>
  createLocalPool({ entry: workerEntry, init: { ...init, ...changes } });

let critic: Awaited<ReturnType<typeof start>>;
beforeAll(async () => {
  critic = await start();
});
afterAll(async () => {
  await critic?.close();
  rmSync(folder, { recursive: true, force: true });
});

const row = (...ids: number[]) => ({
  ids: Int32Array.from(ids),
  mask: Uint8Array.from(ids, (_, i) => (i > 1 ? 1 : 0)),
  promptLength: 2,
  frames: [],
});
const batch = { id: 'b', trajectories: [row(300, 301, 302, 303, 304), row(300, 301, 305)] };
const adamw = { lr: 1e-4, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay: 0, maxNorm: 1 };

describe('a worker of role critic', () => {
  it('gives a value for each token of the mask, and no rollouts', async () => {
    const values = await critic.values(batch);
    expect(values.map((v) => Array.from(v, (x) => x !== 0))).toEqual([
      [false, false, true, true, true],
      [false, false, true],
    ]);
    // The same state before the first token of both responses.
    expect(values[1]![2]).toBeCloseTo(values[0]![2]!, 5);
    expect(critic.capabilities.methods).not.toContain('rollout');
    const sampling = { temperature: 1, topP: 1, topK: -1, doSample: true };
    const sample = { uid: 'q', prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} };
    const rolling = critic
      .rollout([{ sample, position: 0, n: 1, step: 1 }], sampling)
      [Symbol.asyncIterator]()
      .next();
    await expect(rolling).rejects.toThrow(InputError);
  });

  it('learns what its cotangents say, and goes back to saved weights bit for bit', async () => {
    const saved = await stateOf(critic);
    expect(saved.parameters.get('score.weight')!.shape).toEqual([1, 128]);
    const error = (values: Float32Array[]) => values.map((v) => v.map((x, i) => (i >= 2 ? x - 1 : 0)));
    const squares = (rows: Float32Array[]) => rows.flatMap((r) => [...r]).reduce((sum, x) => sum + x * x, 0);
    const before = await critic.values(batch);
    let values = before;
    for (let k = 0; k < 4; k++) {
      expect(await critic.backwardValues(batch, error(values))).toEqual(values);
      expect((await critic.applyUpdate(adamw)).applied).toBe(true);
      values = await critic.values(batch);
    }
    expect(squares(error(values))).toBeLessThan(0.5 * squares(error(before)));
    await giveState(critic, saved);
    expect(await critic.values(batch)).toEqual(before);
  });

  it('can be exported, and starts again from what it wrote; its head is from the seed else', async () => {
    const exported = join(folder, 'exported');
    await critic.exportTo(exported);
    const files = openHfFolder(exported);
    const head = files.read('score.weight');
    files.close();
    const states = [];
    for (const changes of [{ path: exported, seed: 4 }, { seed: 4 }]) {
      const other = await start(changes);
      states.push((await stateOf(other)).parameters.get('score.weight')!.weight);
      await other.close();
    }
    expect(Buffer.compare(bytesOf(states[0]!), bytesOf(head))).toBe(0);
    expect(Buffer.compare(bytesOf(states[1]!), bytesOf(head))).not.toBe(0);
  });
});
