/**
 * @file One, two and four local workers train the same: trajectories token for token, gradient sums, weights; with a critic too.
 * Two runs of two workers are equal bit for bit, and their checkpoint goes on with any number. The runs of one number share its
 * processes, which begin each run with the base policy's weights.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openActor } from '@frame-thinker/checkpoint';
import { loadConfig } from '@frame-thinker/config';
import { workerEntry } from '@frame-thinker/policy-worker';
import { criticInit, runTraining, workerInit } from '@frame-thinker/trainer';
import { createPool, LocalTransport, take, type WorkerConnection, type WorkerInit } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveState, stateOf, type WorkerState } from '../../packages/worker-pool/src/testing/worker-state.ts';
import { contentOf, metricsOf, trajectoriesOf } from '../faults/training-run.ts';
import { root, runCommand } from './processes.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-workers-'));
const CONFIG = join(root, 'configs/debug/tiny.yaml');
const STEPS = 3;
const dirOf = (name: string): string => join(runs, name);

const configOf = (name: string, workers: number, settings: readonly string[] = []) =>
  loadConfig({
    file: CONFIG,
    overrides: [
      ...[`trainer.default_local_dir=${dirOf(name)}`, `trainer.n_gpus_per_node=${workers}`, 'engine.threads=1'],
      ...['data.val_files=[]', 'data.train_batch_size=4', 'actor_rollout_ref.actor.ppo_mini_batch_size=4'],
      // Fewer slots than rows, and micro-batches of one row: there is something to share out.
      ...['actor_rollout_ref.rollout.n=4', 'actor_rollout_ref.rollout.slots=4', 'data.max_response_length=256'],
      ...[`trainer.total_training_steps=${STEPS}`, 'actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1'],
      ...settings,
    ],
    cores: 4,
  });

const gradientsOf = async (worker: WorkerConnection): Promise<Float64Array> =>
  take((await worker.call('gradients_out')).tensors, 'gradients', Float64Array);

/** Local workers; the length of each one's own sums is kept, and what the first worker updates with. */
class Watched extends LocalTransport {
  first: WorkerConnection | undefined;
  sums: Float64Array[] = [];
  parts: number[][] = [];
  override start(rank: number) {
    const worker = super.start(rank);
    if (rank === 0) this.first = worker;
    return worker;
  }
  override async collectGradients(workers: readonly WorkerConnection[]): Promise<void> {
    await super.collectGradients(workers);
    this.parts.push(await Promise.all(workers.map(async (worker) => norm(await gradientsOf(worker)))));
  }
  override async spreadGradients(worker: WorkerConnection): Promise<void> {
    await super.spreadGradients(worker);
    if (worker === this.first) this.sums.push(await gradientsOf(worker));
  }
}

type Pool = Awaited<ReturnType<typeof createPool>>;
interface Shared {
  pool: Pool;
  transport: Watched;
  first: WorkerState;
}
const pools = new Map<string, Promise<Shared>>();

/** A pool that is started once; its sums begin anew and its weights are the base policy's. */
async function shared(name: string, init: WorkerInit, workers: number): Promise<Shared> {
  if (!pools.has(name)) {
    const opened = async (): Promise<Shared> => {
      const transport = new Watched({ entry: workerEntry, logDirectory: join(runs, 'logs', name) });
      const pool = await createPool({ transport, init, workers });
      return { pool, transport, first: await stateOf(pool) };
    };
    pools.set(name, opened());
  }
  const found = await pools.get(name)!;
  await giveState(found.pool, found.first);
  found.transport.sums = [];
  found.transport.parts = [];
  return found;
}

/** The pool for one run: it outlives it, and what one worker alone updates with is kept as well. */
const lent = ({ pool, transport }: Shared, workers: number): Pool =>
  new Proxy(pool, {
    get: (target, key) => {
      if (key === 'close') return async () => {};
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      if (key !== 'applyUpdate' || workers > 1) return value.bind(target);
      return async (...options: Parameters<Pool['applyUpdate']>) => {
        transport.sums.push(await gradientsOf(transport.first!));
        return target.applyUpdate(...options);
      };
    },
  });

async function train(name: string, workers: number, ...settings: string[]): Promise<Watched> {
  const loaded = configOf(name, workers, settings);
  expect(loaded.workers).toBe(workers);
  const policy = await shared(`policy-${workers}`, workerInit(loaded.config, workers), workers);
  const critic = () => shared(`critic-${workers}`, criticInit(loaded.config, workers), workers);
  const lines: string[] = [];
  const code = await runTraining({
    loaded,
    print: (line) => lines.push(line),
    startWorker: async () => lent(policy, workers),
    startCritic: async () => lent(await critic(), workers),
  });
  expect(code, lines.slice(-5).join('\n')).toBe(0);
  return policy.transport;
}

/** Weights and moments of a checkpoint, by name. */
function tensorsOf(name: string, step: number, part = 'actor'): Map<string, Float32Array> {
  const { model, moments } = openActor(join(dirOf(name), `global_step_${step}/${part}`));
  const all = [model, moments].flatMap((from) => from.names.map((tensor) => [tensor, from.read(tensor)] as const));
  model.close();
  moments.close();
  return new Map(all);
}
const norm = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
};
/** Relative L2 distance. */
function distance(a: Float32Array | Float64Array, b: Float32Array | Float64Array): number {
  expect(a.length).toBe(b.length);
  return norm(Float64Array.from(a, (x, i) => x - b[i]!)) / Math.max(norm(b), 1e-12);
}

/** Names of tensors further apart than 1e-5; key biases, whose gradient is zero in exact arithmetic, left out. */
function farApart(a: Map<string, Float32Array>, b: Map<string, Float32Array>): string[] {
  expect([...a.keys()].sort()).toEqual([...b.keys()].sort());
  const names = [...a.keys()].filter((name) => !/k_proj\.bias/.test(name));
  return names.filter((name) => distance(a.get(name)!, b.get(name)!) > 1e-5);
}

beforeAll(async () => {
  expect((await runCommand(['data', 'synth', '--config', CONFIG])).code).toBe(0);
});
afterAll(async () => {
  for (const shared of pools.values()) await (await shared).pool.close();
  rmSync(runs, { recursive: true, force: true });
});

describe('training with several workers', () => {
  let alone: Float64Array[];
  beforeAll(async () => {
    alone = (await train('one', 1)).sums;
    // A comparison of nothing with nothing would be true too.
    expect(alone).toHaveLength(STEPS);
    for (const sum of alone) expect(norm(sum)).toBeGreaterThan(0);
  });

  it.each([2, 4])('is that of one with %i: trajectories, gradient sums and weights', async (workers) => {
    const { sums, parts } = await train(String(workers), workers);
    // Every worker did some of each step.
    expect(parts.map((lengths) => lengths.filter((length) => length > 0).length)).toEqual(Array(STEPS).fill(workers));
    expect(trajectoriesOf(dirOf(String(workers)))).toEqual(trajectoriesOf(dirOf('one')));
    expect(sums).toHaveLength(STEPS);
    for (const [step, sum] of sums.entries())
      expect(distance(sum, alone[step]!), `step ${step + 1}`).toBeLessThanOrEqual(1e-6);
    expect(farApart(tensorsOf(String(workers), STEPS), tensorsOf('one', STEPS))).toEqual([]);
  });

  it('is equal bit for bit the second time', async () => {
    await train('again', 2);
    expect(contentOf(dirOf('again'))).toEqual(contentOf(dirOf('2')));
  });

  it.each([1, 4])('goes on from a checkpoint of two with %i', async (workers) => {
    const name = `resumed-${workers}`;
    const from = join(dirOf('2'), `global_step_${STEPS - 1}`);
    await train(name, workers, 'trainer.resume_mode=resume_path', `trainer.resume_from_path=${from}`);
    expect(metricsOf(dirOf(name)).map((line) => line['training/global_step'])).toEqual([STEPS]);
    expect(Object.values(trajectoriesOf(dirOf(name)))).toEqual(
      Object.entries(trajectoriesOf(dirOf('2')))
        .filter(([file]) => file.includes(String(STEPS)))
        .map(([, content]) => content),
    );
    expect(farApart(tensorsOf(name, STEPS), tensorsOf('2', STEPS))).toEqual([]);
  });

  it('trains a critic of two as a critic of one', async () => {
    const gae = ['algorithm.adv_estimator=gae', 'trainer.total_training_steps=2', 'trainer.save_freq=-1'];
    await train('gae-one', 1, ...gae);
    await train('gae-two', 2, ...gae);
    const [one, two] = await Promise.all(
      ['critic-1', 'critic-2'].map(async (name) => (await pools.get(name)!).transport),
    );
    // Both workers of the critic did some of each step.
    expect(two!.parts.map((lengths) => lengths.filter((length) => length > 0).length)).toEqual([2, 2]);
    expect(one!.sums).toHaveLength(2);
    for (const [step, sum] of two!.sums.entries())
      expect(distance(sum, one!.sums[step]!), `step ${step + 1}`).toBeLessThanOrEqual(1e-6);
    expect(trajectoriesOf(dirOf('gae-two'))).toEqual(trajectoriesOf(dirOf('gae-one')));
    for (const part of ['actor', 'critic'])
      expect(farApart(tensorsOf('gae-two', 2, part), tensorsOf('gae-one', 2, part))).toEqual([]);
    expect(metricsOf(dirOf('gae-two')).map((line) => line['critic/grad_norm']! > 0)).toEqual([true, true]);
  });
});
