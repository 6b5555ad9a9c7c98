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
  type WorkerConnection,
  WorkerError,
  type WorkerInit,
  type WorkerProcess,
} from '@frame-thinker/worker-pool';
import { afterAll, describe, expect, it } from 'vitest';
import { stateOf } from '../../worker-pool/src/testing/worker-state.ts';
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
async function run(
  workers: number,
  disturb: Disturb = () => {},
  transport = new Reached({ entry: workerEntry, logDirectory: logs }),
): Promise<{ digest: string; warnings: string[] }> {
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
    const state = await stateOf(pool);
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

  it('starts one again that dies while it loads the model, and gives up after the third', async () => {
    for (const deaths of [2, 3]) {
      const transport = new Reached({ entry: workerEntry, logDirectory: logs });
      const { start } = transport;
      transport.start = (rank) => {
        const worker = start.call(transport, rank);
        if (transport.started[1]!.length <= deaths && rank === 1) process.kill(worker.pid!, 'SIGKILL');
        return worker;
      };
      const said: string[] = [];
      const watchdog = { quietMs: 60_000, hungMs: 60_000, warn: (line: string) => said.push(line) };
      const opened = createPool({ transport, init, workers: 2, watchdog });
      if (deaths === 3) {
        await expect(opened).rejects.toThrow(RunError);
        await expect(opened).rejects.toThrow(/worker 1 died \(SIGKILL\) in init[\s\S]*died 3 times with nothing done/);
      } else await (await opened).close();
      expect(said.map((line) => line.split('\n')[0])).toEqual(
        [1, 2].map(() => expect.stringMatching(/SIGKILL.* in init/)),
      );
      for (const worker of transport.started.flat()) expect(worker.dead).toBe(true);
    }
  });

  it('does not need bulk data that a dead node had', async () => {
    const { digest } = await run(2);
    /** Workers that don't get the sums of the second update when they first ask for them. */
    class Losing extends Reached {
      asked = 0;
      readonly losers: readonly number[];
      constructor(losers: readonly number[]) {
        super({ entry: workerEntry, logDirectory: logs });
        this.losers = losers;
      }
      override async spreadGradients(worker: WorkerConnection): Promise<void> {
        const turn = this.asked++ - 2;
        const rank = this.started.findIndex((workers) => workers.includes(worker as WorkerProcess));
        if (turn < 0 || turn > 1 || !this.losers.includes(rank)) return super.spreadGradients(worker);
        if (this.losers.length > 1 && rank === 1) {
          this.kill(1);
          await worker.died;
        }
        throw new WorkerError('lost', 'put', `worker ${rank}, put: the object is lost`, '');
      }
    }
    // A node dies with its worker, and nobody gets the sums: they are collected again.
    const all = new Losing([0, 1]);
    expect((await run(2, () => {}, all)).digest).toBe(digest);
    expect(all.started.map((workers) => workers.length)).toEqual([1, 2]);
    // One does not get what the other has applied: it is replaced.
    const one = new Losing([1]);
    const disturbed = await run(2, () => {}, one);
    expect(disturbed.digest).toBe(digest);
    expect(disturbed.warnings.join('\n')).toMatch(/worker 1, put: the object is lost\nit is replaced/);
    expect(one.started.map((workers) => workers.length)).toEqual([1, 2]);
  });

  it('ends in a line when the only state was on a dead node', async () => {
    const transport = new Reached({ entry: workerEntry, logDirectory: logs });
    const pool = await createPool({ transport, init, workers: 1 });
    await backward(pool, 1);
    await pool.applyUpdate(adamw);
    transport.restoreState = () => Promise.reject(new WorkerError('lost', 'put', 'worker 0, put: lost', ''));
    transport.kill(0);
    const failed = await backward(pool, 2).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(RunError);
    expect(String(failed)).toMatch(/the weights that were kept are lost \(worker 0, put: lost\): start the run again/);
    await pool.close();
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
