/** @file What tests of workers on Ray train: the fixtures' model, backward passes by number, digests of what comes of them. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { bytesOf, type TensorData } from '@frame-thinker/checkpoint';
import type { PolicyWorker, WorkerInit } from '@frame-thinker/worker-pool';
import { stateOf } from '../../packages/worker-pool/src/testing/worker-state.ts';
import { root } from '../e2e/processes.ts';

export const init: WorkerInit = {
  path: join(process.env.GOLDEN_DIR ?? join(root, 'tests/fixtures'), 'qwen/model'),
  dtype: 'float32',
  seed: 3,
  engine: { name: 'onnx', provider: 'cpu', threads: 1 },
};

/** Comparing digests is quicker than comparing millions of numbers one by one. */
export const sha256 = (data: TensorData['data']): string => createHash('sha256').update(bytesOf(data)).digest('hex');

/** A row and its cotangent, which depend on `seed`. */
export function rowOf(seed: number): { ids: Int32Array; mask: Uint8Array; dLogProbs: Float32Array } {
  const ids = Int32Array.from({ length: 12 }, (_, i) => 10 + ((seed * 7 + i * 3) % 50));
  const mask = Uint8Array.from(ids, (_, i) => Number(i >= 4));
  return { ids, mask, dLogProbs: Float32Array.from(ids, (_, i) => (i >= 4 ? 0.1 * seed + 0.01 * i : 0)) };
}

function backward(pool: PolicyWorker, seed: number): Promise<unknown> {
  const { ids, mask, dLogProbs } = rowOf(seed);
  const batch = { id: `b${seed}`, trajectories: [{ ids, mask, promptLength: 4, frames: [] }] };
  const cotangents = { dLogProbs: [dLogProbs], dEntropy: [new Float32Array(ids.length)] };
  return pool.backward(batch, cotangents, { temperature: 1, ban: [] });
}

/** Updates of four micro-batches; `disturb` is called while the second one's are computed. Digests of weights and moments. */
export async function train(
  pool: PolicyWorker,
  { updates, disturb = async () => {} }: { updates: number; disturb?: () => Promise<void> },
): Promise<unknown> {
  for (let update = 0; update < updates; update++) {
    const micro = [1, 2, 3, 4].map((seed) => backward(pool, seed + 10 * update));
    if (update === 1) await disturb();
    await Promise.all(micro);
    await pool.applyUpdate({ lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 });
  }
  const { step, parameters } = await stateOf(pool);
  const digests = [...parameters].map(([name, { weight, expAvg, expAvgSq }]) => [
    name,
    ...[weight, expAvg, expAvgSq].map(sha256),
  ]);
  return { step, digests };
}
