/** @file Workers killed at every kind of moment: the pool's numbers are those of one that nobody disturbed. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf } from '@frame-thinker/checkpoint';
import { RunError } from '@frame-thinker/core';
import {
  createPool,
  LocalTransport,
  type PolicyWorker,
  type WorkerBatch,
  type WorkerInit,
  type WorkerProcess,
} from '@frame-thinker/worker-pool';
import { afterAll, describe, expect, it } from 'vitest';
import { workerEntry } from './index.ts';

const path = join(process.env.GOLDEN_DIR ?? join(import.meta.dirname, '../../../tests/fixtures'), 'qwen/model');
const init: WorkerInit = { path, dtype: 'float32', seed: 3, engine: { name: 'onnx', provider: 'cpu', threads: 1 } };
const adamw = { lr: 1e-2, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 };
const score = { temperature: 1, ban: [] };
const logs = mkdtempSync(join(tmpdir(), 'frame-thinker-deaths-'));
afterAll(() => rmSync(logs, { recursive: true, force: true }));

/** Local workers that a test can reach, the newest of each rank last. */
class Reached extends LocalTransport {
  readonly started: WorkerProcess[][] = [[], []];
  override start(rank: number): WorkerProcess {
    const worker = super.start(rank);
    this.started[rank]!.push(worker);
    return worker;
  }
  kill(rank: number): void {
    process.kill(this.started[rank]!.at(-1)!.pid!, 'SIGKILL');
  }
}

const batch = (seed: number): WorkerBatch => {
  const ids = Int32Array.from({ length: 12 }, (_, i) => 10 + ((seed * 7 + i * 3) % 50));
  const mask = Uint8Array.from(ids, (_, i) => Number(i >= 4));
  return { id: `b${seed}`, trajectories: [{ ids, mask, promptLength: 4, frames: [] }] };
};
const backward = (pool: PolicyWorker, seed: number): Promise<unknown> => {
  const { ids } = batch(seed).trajectories[0]!;
  const dLogProbs = [Float32Array.from(ids, (_, i) => (i >= 4 ? 0.1 * seed + 0.01 * i : 0))];
  return pool.backward(batch(seed), { dLogProbs, dEntropy: [new Float32Array(ids.length)] }, score);
};

type Disturb = (moment: string, transport: Reached) => void;

/** Two updates of four micro-batches each; a digest of weights and moments, and what was told of deaths. */
async function run(workers: number, disturb: Disturb = () => {}): Promise<{ digest: string; warnings: string[] }> {
  const transport = new Reached({ entry: workerEntry, logDirectory: logs });
  const warnings: string[] = [];
  const watchdog = { quietMs: 60_000, hungMs: 60_000, warn: (line: string) => warnings.push(line) };
  const pool = await createPool({ transport, init, workers, watchdog });
  try {
    for (const update of [0, 1]) {
      const micro = [1, 2, 3, 4].map((seed) => backward(pool, seed + 10 * update));
      disturb(`during backward ${update}`, transport);
      await Promise.all(micro);
      disturb(`after backward ${update}`, transport);
      const applied = pool.applyUpdate(adamw);
      disturb(`during update ${update}`, transport);
      await applied;
      disturb(`after update ${update}`, transport);
    }
    const state = await pool.weightsOut();
    const hash = createHash('sha256').update(String(state.step));
    for (const [name, { weight, expAvg, expAvgSq }] of state.parameters)
      for (const data of [weight, expAvg, expAvgSq]) hash.update(name).update(bytesOf(data));
    return { digest: hash.digest('hex'), warnings };
  } finally {
    await pool.close();
    for (const worker of transport.started.flat()) expect(worker.dead).toBe(true);
  }
}

describe('a pool whose workers die', () => {
  it.each([1, 2])('has the same weights and moments with %i workers', async (workers) => {
    const { digest, warnings } = await run(workers);
    expect(warnings).toEqual([]);
    for (const at of ['during backward 0', 'after backward 1', 'during update 1', 'after update 0']) {
      const disturbed = await run(workers, (moment, transport) => {
        if (moment === at) transport.kill(workers - 1);
      });
      expect(disturbed.warnings.join('\n'), at).toMatch(/died \(SIGKILL\)/);
      expect(disturbed.digest, at).toBe(digest);
    }
  });

  it('ends when one keeps dying', async () => {
    const transport = new Reached({ entry: workerEntry, logDirectory: logs });
    const pool = await createPool({ transport, init, workers: 1 });
    const { start } = transport;
    transport.start = (rank) => {
      const worker = start.call(transport, rank);
      process.kill(worker.pid!, 'SIGKILL');
      return worker;
    };
    transport.kill(0);
    const failed = await backward(pool, 1).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(RunError);
    expect(String(failed)).toMatch(/worker 0 died 3 times with nothing done between/);
    await pool.close();
  });

  it('starts no worker for one that is busy when the pool is closed', async () => {
    const transport = new Reached({ entry: workerEntry, logDirectory: logs });
    const pool = await createPool({ transport, init, workers: 2 });
    const asked = Promise.allSettled([1, 2, 3, 4].map((seed) => backward(pool, seed)));
    transport.kill(1);
    await pool.close();
    expect((await asked).map(({ status }) => status)).toContain('rejected');
    expect(transport.started.map((workers) => workers.map(({ dead }) => dead))).toEqual([[true], [true]]);
  });

  it('does not go on from the first weights when all die at once', async () => {
    const transport = new Reached({ entry: workerEntry, logDirectory: logs });
    const pool = await createPool({ transport, init, workers: 2 });
    try {
      await backward(pool, 1);
      await pool.applyUpdate(adamw);
      const asked = Promise.allSettled([backward(pool, 2), backward(pool, 3)]);
      for (const rank of [0, 1]) transport.kill(rank);
      for (const one of await asked) {
        expect(one.status).toBe('rejected');
        if (one.status === 'rejected')
          expect(String(one.reason)).toMatch(/all workers died, and their weights with them/);
      }
    } finally {
      await pool.close();
    }
  });
});
