/** @file Workers behind shim actors on two real Ray nodes: calls, bulk data, deaths, and that nothing is left of them. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TensorData, tensorOf } from '@frame-thinker/checkpoint';
import { workerEntry } from '@frame-thinker/policy-worker';
import {
  createPool,
  createRayTransport,
  type RayTransport,
  type RayTransportOptions,
  toWire,
  type WorkerConnection,
} from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { readState } from '../../packages/worker-pool/src/testing/worker-state.ts';
import { root } from '../e2e/processes.ts';
import { init, rowOf, sha256, train } from './small-pool.ts';

const ray = inject('ray');
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});

const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-ray-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const settings = (more: Partial<RayTransportOptions> = {}): RayTransportOptions => ({
  address: 'address' in ray ? ray.address : '',
  entry: workerEntry,
  resources: { numCpus: 2, placement: 'spread' },
  node: process.execPath,
  checkout: root,
  cwd: root,
  logDirectory: folder,
  ...more,
});
/** Whether a process runs; a zombie does not. */
const runs = (pid: number): boolean => {
  try {
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
};
const pidOf = async (worker: WorkerConnection): Promise<number> => Number((await worker.call('health')).result.pid);

/** A backward pass whose gradients depend on `seed`. */
const backward = (worker: WorkerConnection, seed: number): Promise<unknown> => {
  const { ids, mask, dLogProbs } = rowOf(seed);
  const row = { length: ids.length, prompt_length: 4, frames: [], images: [] };
  const tensors: [string, TensorData][] = [
    ['ids', tensorOf(ids)],
    ['mask', tensorOf(mask)],
    ['d_logp', tensorOf(dLogProbs)],
    ['d_entropy', tensorOf(new Float32Array(ids.length))],
  ];
  const batch = { id: `b${seed}`, trajectories: [row] };
  return worker.call('backward', { batch, temperature: 1, ban: [] }, tensors);
};
const gradientsOf = async (worker: WorkerConnection): Promise<Float64Array> =>
  (await worker.call('gradients_out')).tensors.get('gradients')!.data as Float64Array;
/** Digests of weights and moments, by the files that the transport brings. */
const weightsOf = async (transport: RayTransport, worker: WorkerConnection): Promise<Map<string, string>> => {
  const saved = mkdtempSync(join(folder, 'saved-'));
  const { parameters } = readState(saved, await transport.save(worker, saved, { rank: 0, worldSize: 1 }));
  const all = [...parameters].flatMap(([name, { weight, expAvg, expAvgSq }]) =>
    [weight, expAvg, expAvgSq].map((data, i) => [`${name} ${i}`, sha256(data)] as const),
  );
  return new Map(all);
};
const adamw = { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, max_norm: 1 };

describe('workers on Ray nodes', () => {
  const said: string[] = [];
  let transport: RayTransport;
  let workers: ReturnType<RayTransport['start']>[] = [];
  beforeAll(async () => {
    if ('missing' in ray) return;
    transport = await createRayTransport(settings({ warn: (line) => said.push(line) }));
    workers = [0, 1].map((rank) => transport.start(rank));
    await Promise.all(workers.map((worker) => worker.call('init', toWire(init))));
  });
  afterAll(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    await transport?.close();
  });

  it('runs one on each node, and answers, streams, fails and goes on', async () => {
    const nodes = workers.map(({ where }) => /on node \S+ \((\w+)\)/.exec(where)![1]);
    expect(new Set(nodes).size).toBe(2);
    const worker = workers[0]!;
    expect(worker.where).toContain(`pid ${await pidOf(worker)} `);
    await expect(worker.call('no_such_method')).rejects.toThrow(/worker 0, no_such_method: no method no_such_method/);
    await expect(worker.call('load', { path: folder, step: 1 })).rejects.toThrow(/has no model_world_size/);
    expect(worker.oldestCall()).toBeUndefined();
    const [weights] = await Promise.all([weightsOf(transport, worker), backward(worker, 1)]);
    expect(weights.size).toBeGreaterThan(10);
    await worker.call('zero_gradients');
  });

  it('adds gradient sums in order, keeps the total, and leaves each its own', async () => {
    await Promise.all(workers.map((worker, i) => backward(worker, i + 1)));
    const own = await Promise.all(workers.map(gradientsOf));
    expect(sha256(own[0]!)).not.toBe(sha256(own[1]!));
    await transport.collectGradients(workers);
    expect((await Promise.all(workers.map(gradientsOf))).map(sha256)).toEqual(own.map(sha256));
    await Promise.all(workers.map((worker) => transport.spreadGradients(worker)));
    const total = own[0]!.map((x, i) => x + own[1]![i]!);
    for (const worker of workers) expect(sha256(await gradientsOf(worker))).toBe(sha256(total));
  });

  it('says when there is too little shared memory, once, and uses the temporary folder', async () => {
    const worker = workers[0]!;
    for (let i = 0; i < 2; i++)
      expect(await worker.folder(2 ** 60)).toBe(join(tmpdir(), basename(await worker.folder(0))));
    expect(said.filter((line) => line.includes('shared memory'))).toEqual([
      expect.stringMatching(
        /^worker 0: its node's shared memory has \d+ MiB free, 1099511627776 MiB are needed: bulk data go to /,
      ),
    ]);
  });

  it('keeps a state and gives it to another worker', async () => {
    const [first, second] = [workers[0]!, workers[1]!];
    await first.call('apply_update', adamw);
    await transport.keepState(first);
    const kept = await weightsOf(transport, first);
    expect(await weightsOf(transport, second)).not.toEqual(kept);
    await first.call('zero_gradients');
    await backward(first, 5);
    await first.call('apply_update', adamw);
    await transport.restoreState(second);
    expect(await weightsOf(transport, second)).toEqual(kept);
    await transport.restoreState(first);
    expect(await weightsOf(transport, first)).toEqual(kept);
  });

  it('tells of a killed worker, keeps its log, and starts another', async () => {
    const pid = await pidOf(workers[1]!);
    const call = backward(workers[1]!, 3).catch((error: unknown) => error);
    process.kill(pid, 'SIGKILL');
    expect(await call).toMatchObject({ type: 'died', message: expect.stringMatching(/worker 1 died \(SIGKILL\)/) });
    await workers[1]!.died;
    await expect(transport.collectGradients(workers)).rejects.toMatchObject({ type: 'died' });
    workers[1] = transport.start(1);
    await workers[1].call('init', toWire(init));
    await transport.restoreState(workers[1]);
    expect(await weightsOf(transport, workers[1])).toEqual(await weightsOf(transport, workers[0]!));
  });

  it('ends a worker with its actor, a stopped one too', async () => {
    const pid = await pidOf(workers[1]!);
    const bulk = await workers[1]!.folder(0);
    expect(bulk).toMatch(/^\/dev\/shm\/frame-thinker-/);
    expect(existsSync(bulk)).toBe(true);
    process.kill(pid, 'SIGSTOP');
    const call = workers[1]!.call('gradients_out').catch((error: unknown) => error);
    const parent = Number(/^\d+ \(.*\) \w (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))![1]);
    process.kill(parent, 'SIGKILL');
    expect(await call).toMatchObject({ type: 'died', message: expect.stringMatching(/worker 1 .*actor/) });
    await workers[1]!.died;
    await expect.poll(() => runs(pid), { timeout: 30_000 }).toBe(false);
    await expect.poll(() => existsSync(bulk), { timeout: 30_000 }).toBe(false);
    workers[1] = transport.start(1);
    const again = await pidOf(workers[1]);
    process.kill(again, 'SIGSTOP');
    await workers[1].kill('hangs');
    await expect(workers[1].call('health')).rejects.toThrow(/worker 1 hangs in health/);
    await expect.poll(() => runs(again), { timeout: 30_000 }).toBe(false);
  });

  it('names one that hangs in an update with its call, replaces it, and has the numbers of an undisturbed pool', async () => {
    const trainOnRay = async (disturb: (started: WorkerConnection[][]) => Promise<void>) => {
      const own = await createRayTransport(settings({ resources: { numCpus: 0, placement: 'spread' } }));
      const started: WorkerConnection[][] = [[], []];
      const { start } = own;
      own.start = (rank) => {
        const worker = start.call(own, rank);
        started[rank]!.push(worker);
        return worker;
      };
      const said: string[] = [];
      const watchdog = { quietMs: 1_000, hungMs: 8_000, warn: (line: string) => void said.push(line) };
      const pool = await createPool({ transport: own, init, workers: 2, watchdog });
      try {
        return { state: await train(pool, { updates: 2, disturb: () => disturb(started) }), said, started };
      } finally {
        await pool.close();
      }
    };
    const undisturbed = await trainOnRay(async () => {});
    expect(undisturbed.said.filter((line) => /it is (ended|replaced)/.test(line))).toEqual([]);
    expect(undisturbed.started.map((of) => of.length)).toEqual([1, 1]);
    let hanging = 0;
    const hung = await trainOnRay(async (started) => {
      hanging = Number(/^pid (\d+) /.exec(started[1]!.at(-1)!.where)![1]);
      process.kill(hanging, 'SIGSTOP');
    });
    const ended = hung.said.find((line) => line.includes('it is ended'));
    expect(ended).toMatch(
      new RegExp(`^worker 1 \\(pid ${hanging} on node .*\\) has been in backward for \\d+ s: it is ended$`),
    );
    expect(hung.started.map((of) => of.length)).toEqual([1, 2]);
    expect(hung.state).toEqual(undisturbed.state);
    await expect.poll(() => runs(hanging), { timeout: 30_000 }).toBe(false);
  });

  it('says why a worker could not be started', async () => {
    const nowhere = await createRayTransport(settings({ checkout: '/no/such/checkout' }));
    const lost = nowhere.start(0);
    await expect(lost.call('health')).rejects.toThrow(
      /worker 0 could not be started: \/no\/such\/checkout\/node_modules is not there/,
    );
    await lost.died;
    await nowhere.close();
    const crowded = await createRayTransport(settings({ resources: { numCpus: 64 }, startSeconds: 5 }));
    await expect(crowded.start(0).call('health')).rejects.toThrow(
      /had not started: a worker asks for \{"CPU":64,.*free/,
    );
    await crowded.close();
    await expect(createRayTransport(settings({ address: 'ray://127.0.0.1:1', startSeconds: 1 }))).rejects.toThrow(
      /no session with Ray at ray:\/\/127.0.0.1:1/,
    );
  });
});
