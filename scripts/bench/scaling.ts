/**
 * @file `pnpm bench scaling [--workers 1,2,4] [--questions N] [--steps N] [--config FILE] [--out FILE] [--costs [--model DIR]]`: steps of the main job with some
 * numbers of local workers on one core each, by turns, and what the local pool's messages and bulk transfers cost. The ratios are
 * efficiencies: the time with one worker by W times that with W. `--out` is what scripts/scaling-model.ts reads. `--costs`: the costs alone, in milliseconds beside those with one worker, of the configuration's policy or another.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { tensorOf } from '@frame-thinker/checkpoint';
import { loadConfig } from '@frame-thinker/config';
import { InputError, RunError } from '@frame-thinker/core';
import { workerInit } from '@frame-thinker/trainer';
import { LocalTransport, toWire, WorkerProcess } from '@frame-thinker/worker-pool';
import { type BenchOptions, type BenchResult, compare, median } from '../bench-result.ts';
import {
  formatMeasurement,
  type ScalingMeasurement,
  type ScalingRun,
  type TransferCosts,
} from '../scaling-model/measurement.ts';
import { trainSteps } from './workers.ts';

const CALLS = 200;
const MEGABYTES = 16;
const REPEATS = 7;
const root = join(import.meta.dirname, '../..');
const echo = join(root, 'packages/worker-pool/src/echo-worker.ts');
const entry = join(root, 'packages/policy-worker/src/main.ts');

export const options = {
  config: { type: 'string', default: 'configs/frame_thinker.yaml' },
  workers: { type: 'string', default: '1,2' },
  questions: { type: 'string', default: '16' },
  steps: { type: 'string', default: '4' },
  out: { type: 'string' },
  costs: { type: 'boolean', default: false },
  model: { type: 'string' },
} as const;

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

async function medianMs(repeats: number, work: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  // The first warms up.
  for (let i = 0; i <= repeats; i++) {
    const since = performance.now();
    await work();
    if (i > 0) times.push(performance.now() - since);
  }
  return median(times);
}

/** Milliseconds of a call with 1 kB there and back, and of a MiB there and back beyond it. */
async function messageCosts(): Promise<{ call: number; megabyte: number }> {
  const worker = new WorkerProcess({ name: 'echo', entry: echo });
  try {
    const send = (bytes: number): (() => Promise<unknown>) => {
      const data = new Uint8Array(bytes);
      return () => worker.call('echo', {}, [['data', tensorOf(data)]]);
    };
    const call = await medianMs(CALLS, send(1000));
    const large = await medianMs(REPEATS, send(MEGABYTES * 2 ** 20));
    return { call, megabyte: (large - call) / MEGABYTES };
  } finally {
    await worker.close();
  }
}

/** Milliseconds of what the pool does between the last micro-batch and AdamW, with the policy of the configuration. */
async function transferCosts(config: string, workers: number, model: unknown): Promise<TransferCosts> {
  const path = model === undefined ? [] : [`actor_rollout_ref.model.path=${model}`];
  const { config: loaded } = loadConfig({ file: config, overrides: ['engine.threads=1', ...path] });
  const transport = new LocalTransport({ entry });
  const connections = Array.from({ length: workers }, (_, rank) => transport.start(rank));
  try {
    const init = toWire(workerInit(loaded, workers));
    const started = await Promise.all(connections.map((worker) => worker.call('init', init)));
    const parameters = Number(started[0]!.result.parameters);
    transport.expect({ parameters, workers });
    const collect = await medianMs(REPEATS, () => transport.collectGradients(connections));
    const spread = await medianMs(REPEATS, () => Promise.all(connections.map((w) => transport.spreadGradients(w))));
    return { workers, parameters, collect, spread };
  } finally {
    await Promise.all(connections.map((worker) => worker.close()));
    await transport.close();
  }
}

function numbersOf(flag: string, given: unknown): number[] {
  const numbers = String(given).split(',').map(Number);
  if (!numbers.every((n) => Number.isInteger(n) && n > 0))
    throw new InputError(`bench scaling: --${flag} ${given}: expected whole numbers above 0, with commas between`);
  return numbers;
}

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  const config = String(flags.config);
  const workers = numbersOf('workers', flags.workers);
  const [[questions], [steps]] = [numbersOf('questions', flags.questions), numbersOf('steps', flags.steps)];
  if (workers[0] !== 1) throw new InputError(`bench scaling: --workers ${flags.workers}: must begin with 1`);
  if (Math.max(...workers) > availableParallelism())
    throw new InputError(`bench scaling: --workers ${flags.workers}: there are ${availableParallelism()} cores`);
  if (flags.model !== undefined && !flags.costs) throw new InputError('bench scaling: --model: only with --costs');
  const [load = 0] = loadavg();
  const messages = await messageCosts();
  log(`a call ${messages.call.toFixed(2)} ms, a MiB there and back ${messages.megabyte.toFixed(2)} ms`);
  const transfers: TransferCosts[] = [];
  for (const count of workers) {
    transfers.push(await transferCosts(config, count, flags.costs ? flags.model : undefined));
    const { collect, spread } = transfers.at(-1)!;
    log(`${count} workers: sums collected ${collect.toFixed(1)} ms, spread ${spread.toFixed(1)} ms`);
  }
  if (flags.costs)
    return transfers.flatMap(({ workers: count, collect, spread }) =>
      (['collect', 'spread'] as const).map((part) =>
        compare({
          ...{
            bench: 'scaling',
            case: `${count} workers, sums ${part}, ms`,
            higher_is_better: false,
            goal: null,
            load,
          },
          ours: [{ collect, spread }[part]],
          peer: [transfers[0]![part]],
        }),
      ),
    );
  const n = loadConfig({ file: config }).config.actor_rollout_ref.rollout.n;
  const runs: ScalingRun[] = [];
  let longest: number[][] | undefined;
  const train = (count: number) => {
    const settings = [
      ...[`data.train_batch_size=${questions}`, `actor_rollout_ref.actor.ppo_mini_batch_size=${questions}`],
    ];
    // A share is one question, whatever the number of workers.
    return trainSteps({ workers: count, config, steps: steps!, slots: n, settings });
  };
  // Videos, packet indexes and optimised models are there for all that is measured.
  train(Math.max(...workers));
  for (let round = 0; round < rounds; round++)
    for (const count of round % 2 === 0 ? workers : workers.toReversed()) {
      const { times, tokens } = train(count);
      longest ??= tokens.map((lengths) => chunks(lengths, n).map((answers) => Math.max(...answers)));
      const first = runs[0]?.steps;
      if (first?.some(({ reward }, i) => reward !== times[i]?.reward))
        throw new RunError(`bench scaling: ${count} workers do not give the rewards of one`);
      runs.push({ workers: count, round, steps: times });
      const seconds = times.map((t) => `${t.phases.toFixed(2)} of ${t.step.toFixed(2)}`).join(', ');
      log(`round ${round}, ${count} workers: worker phases of steps, s: ${seconds}`);
    }
  const measurement: ScalingMeasurement = {
    ...{ pool: 'local', cpu: cpus()[0]!.model, cores: availableParallelism(), questions: questions!, n, load },
    ...{ longest: longest ?? [], messages, transfers, runs },
  };
  if (flags.out !== undefined) writeFileSync(String(flags.out), formatMeasurement(measurement));
  const perCore = (count: number, part: 'phases' | 'step'): number[] =>
    runs
      .filter((run) => run.workers === count)
      .toSorted((a, b) => a.round - b.round)
      .map((run) => 1 / (count * median(run.steps.map((time) => time[part]))));
  return workers.slice(1).flatMap((count) =>
    (['phases', 'step'] as const).map((part) =>
      compare({
        ...{ bench: 'scaling', case: `${count} workers, ${part}/s a core`, higher_is_better: true, goal: null, load },
        ours: perCore(count, part),
        peer: perCore(1, part),
      }),
    ),
  );
}
