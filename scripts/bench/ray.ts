/**
 * @file `scripts/in-loopback.sh pnpm bench ray [--config FILE] [--steps N] [--costs [--model DIR]] [--case CASE]`: the Ray pool (ours) against the local
 * pool (peer), two workers of one thread each: the worker phases of a step of the main job, and the cost of messages and of bulk
 * data. `--costs`: without training steps, with the configuration's policy or another. Starts a cluster of one node, and wants a network that has only loopback.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tensorOf } from '@frame-thinker/checkpoint';
import { loadConfig } from '@frame-thinker/config';
import { InputError, RunError } from '@frame-thinker/core';
import { rayOptions, runTraining, workerInit } from '@frame-thinker/trainer';
import { createRayTransport, toWire, type WorkerConnection, WorkerProcess } from '@frame-thinker/worker-pool';
import { missingForRay, startCluster } from '../../tests/ray/cluster.ts';
import { type BenchOptions, type BenchResult, compare, median, pairedRounds } from '../bench-result.ts';
import { stepTimes } from '../worker-phases.ts';

const CALLS = 200;
const MEGABYTES = 16;
const root = join(import.meta.dirname, '../..');
const echo = join(root, 'packages/worker-pool/src/echo-worker.ts');

export const options = {
  config: { type: 'string', default: 'configs/frame_thinker.yaml' },
  steps: { type: 'string', default: '3' },
  costs: { type: 'boolean', default: false },
  model: { type: 'string' },
} as const;

/** Seconds of the worker phases, and of the whole step, of each step but the first, which compiles. */
async function trainSteps(pool: 'local' | 'ray', config: string, settings: readonly string[]) {
  const dir = mkdtempSync(join(tmpdir(), 'frame-thinker-bench-'));
  const loaded = loadConfig({
    file: config,
    overrides: [
      ...[`trainer.pool=${pool}`, `trainer.default_local_dir=${dir}`, 'trainer.n_gpus_per_node=2', 'engine.threads=1'],
      // Slots are a worker's own: both get questions to roll out.
      'actor_rollout_ref.rollout.slots=32',
      ...['trainer.val_before_train=false', 'data.val_max_samples=1', 'trainer.save_freq=1000', ...settings],
    ],
  });
  try {
    const code = await runTraining({ loaded: { ...loaded, workers: 2 }, print: () => {} });
    if (code !== 0) throw new RunError(`bench ray: the run on the ${pool} pool ended with ${code}`);
    return stepTimes(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

type Caller = Pick<WorkerConnection, 'call'>;

/** Milliseconds of a small call, and of a megabyte there and back beyond it. */
async function messageCosts(worker: Caller): Promise<{ call: number; megabyte: number }> {
  const timed = async (calls: number, bytes: number): Promise<number> => {
    const times: number[] = [];
    const data = new Uint8Array(bytes);
    for (let i = 0; i < calls; i++) {
      const since = performance.now();
      await worker.call('echo', {}, [['data', tensorOf(data)]]);
      times.push(performance.now() - since);
    }
    return median(times);
  };
  await timed(10, 1000);
  const call = await timed(CALLS, 1000);
  return { call, megabyte: ((await timed(5, MEGABYTES * 2 ** 20)) - call) / MEGABYTES };
}

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  const missing = missingForRay();
  if (missing) throw new InputError(`bench ray: ${missing}`);
  const steps = Number(flags.steps);
  if (!(Number.isInteger(steps) && steps > 1))
    throw new InputError(`bench ray: --steps ${flags.steps}: expected a whole number above 1`);
  if (flags.model !== undefined && !flags.costs) throw new InputError('bench ray: --model: only with --costs');
  const config = String(flags.config);
  const cluster = await startCluster([{ cpus: 2, objectStore: 2 ** 30 }]);
  try {
    const settings = [
      ...[`trainer.total_training_steps=${steps}`, `ray.address=${cluster.address}`],
      ...(flags.model === undefined ? [] : [`actor_rollout_ref.model.path=${flags.model}`]),
    ];
    const run = (pool: 'local' | 'ray') => trainSteps(pool, config, settings);
    const phases = (report: Awaited<ReturnType<typeof run>>): number => median(report.map((step) => step.phases));
    const training = await pairedRounds({
      rounds: flags.costs ? 0 : rounds,
      ours: () => run('ray'),
      peer: () => run('local'),
      onRound: (round, ours, peer) => {
        if (ours.some(({ reward }, i) => reward !== peer[i]!.reward))
          throw new RunError('bench ray: the pools do not give the same rewards');
        const text = [ours, peer].map((report) =>
          report.map((step) => `${step.phases.toFixed(2)} of ${step.step.toFixed(2)}`),
        );
        log(
          `round ${round}: worker phases of steps in seconds: Ray ${text[0]!.join(', ')}; local ${text[1]!.join(', ')}`,
        );
      },
    });
    const { config: loaded } = loadConfig({ file: config, overrides: settings });
    const bulk = await bulkCosts(loaded);
    log(
      `on Ray, sums of ${bulk.parameters} parameters (${((8 * bulk.parameters) / 2 ** 20).toFixed(1)} MiB each): collect ${bulk.collect.toFixed(0)} ms, spread to one ${bulk.spread.toFixed(0)} ms; state kept ${bulk.keep.toFixed(0)} ms, given ${bulk.restore.toFixed(0)} ms`,
    );
    const transport = await createRayTransport({ ...rayOptions(loaded), entry: echo });
    const remote = transport.start(0);
    const local = new WorkerProcess({ name: 'local', entry: echo });
    const costs = await pairedRounds({ rounds, ours: () => messageCosts(remote), peer: () => messageCosts(local) });
    await Promise.all([remote.close(), local.close()]);
    await transport.close();
    const messages = (name: string, unit: 'call' | 'megabyte') =>
      compare({
        ...{ bench: 'ray', case: name, higher_is_better: false, goal: null, load: costs.load },
        ours: costs.ours.map((cost) => cost[unit]),
        peer: costs.peer.map((cost) => cost[unit]),
      });
    const costsOf = [messages('a small call, ms', 'call'), messages('a MiB there and back, ms', 'megabyte')];
    if (flags.costs) return costsOf;
    return [
      compare({
        ...{ bench: 'ray', case: 'worker phases of a step, steps/s', higher_is_better: true, goal: 0.85 },
        load: training.load,
        ours: training.ours.map((report) => 1 / phases(report)),
        peer: training.peer.map((report) => 1 / phases(report)),
      }),
      ...costsOf,
    ];
  } finally {
    await cluster.stop();
  }
}

/** Milliseconds of the bulk transfers between two workers with the main job's policy. */
async function bulkCosts(config: Parameters<typeof workerInit>[0]) {
  const transport = await createRayTransport(rayOptions(config));
  const workers = [0, 1].map((rank) => transport.start(rank));
  try {
    const started = await Promise.all(workers.map((worker) => worker.call('init', toWire(workerInit(config, 2)))));
    const timed = async (work: () => Promise<void>): Promise<number> => {
      const times: number[] = [];
      for (let i = 0; i < 6; i++) {
        const since = performance.now();
        await work();
        times.push(performance.now() - since);
      }
      return median(times.slice(1));
    };
    return {
      parameters: Number(started[0]!.result.parameters),
      collect: await timed(() => transport.collectGradients(workers)),
      spread: await timed(() => transport.spreadGradients(workers[1]!)),
      keep: await timed(() => transport.keepState(workers[0]!)),
      restore: await timed(() => transport.restoreState(workers[1]!)),
    };
  } finally {
    await Promise.all(workers.map((worker) => worker.close()));
    await transport.close();
  }
}
