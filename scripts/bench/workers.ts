/**
 * @file `pnpm bench workers [--config FILE] [--steps N]`: steps of the main job with two local workers on one core each (ours)
 * and with one worker on one core (peer). The ratio is the efficiency of the worker phases: the peer's time by twice ours. Then the Ray pool
 * against the local one, as `bench ray` measures it, in a network of its own; left out, with a word, where that can't be.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError, RunError } from '@frame-thinker/core';
import { type BenchOptions, type BenchResult, compare, median, pairedRounds } from '../bench-result.ts';
import { type StepTime, stepTimes, trajectoryTokens } from '../worker-phases.ts';

const root = join(import.meta.dirname, '../..');

export const options = {
  config: { type: 'string', default: 'configs/frame_thinker.yaml' },
  steps: { type: 'string', default: '6' },
} as const;

export const main = 2;

/** The Ray pool's worker phases against the local pool's. */
function rayAgainstLocal({ rounds, flags, log }: BenchOptions): BenchResult[] {
  const command = [process.execPath, '--import', 'tsx', 'scripts/bench.ts', 'ray', '--json', '--rounds', `${rounds}`];
  const words = [...command, '--config', String(flags.config), '--steps', String(flags.steps)];
  const run = spawnSync('scripts/in-loopback.sh', words, { cwd: root, encoding: 'utf8' });
  for (const line of run.stderr.trim().split('\n')) log(line);
  if (run.status === 0) return [JSON.parse(run.stdout) as BenchResult];
  log('the Ray pool is left out');
  return [];
}

export interface TrainingRun {
  workers: number;
  config: string;
  steps: number;
  /** Rows that a worker decodes at once: questions x n / slots is the number of shares that workers are given. */
  slots: number;
  /** More of the command line. */
  settings?: readonly string[];
}

/** Trains with so many workers, all of it on so many cores. */
export function trainSteps({ workers, config, steps, slots, settings = [] }: TrainingRun): {
  times: StepTime[];
  tokens: number[][];
} {
  const dir = mkdtempSync(join(tmpdir(), 'frame-thinker-bench-'));
  const words = [
    ...['-c', `0-${workers - 1}`, process.execPath, '--import', 'tsx', 'packages/cli/src/main.ts', 'train'],
    ...['--config', config, `trainer.default_local_dir=${dir}`, `trainer.total_training_steps=${steps}`],
    ...[`trainer.n_gpus_per_node=${workers}`, 'trainer.nnodes=1', 'engine.threads=1'],
    // Slots are a worker's own: both get questions to roll out, and one worker rolls out in the same shapes.
    ...[`actor_rollout_ref.rollout.slots=${slots}`, 'trainer.val_before_train=false', 'trainer.test_freq=-1'],
    ...['data.val_max_samples=1', 'trainer.save_freq=-1'],
    ...settings,
  ];
  try {
    const run = spawnSync('taskset', words, { cwd: root, encoding: 'utf8' });
    if (run.error) throw new InputError(`taskset (util-linux) could not be started: ${run.error.message}`);
    if (run.status !== 0)
      throw new RunError(`training with ${workers} workers ended with ${run.status}: ${run.stderr.trim()}`);
    return { times: stepTimes(dir), tokens: trajectoryTokens(dir) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  const steps = Number(flags.steps);
  if (!(Number.isInteger(steps) && steps > 1))
    throw new InputError(`bench workers: --steps ${flags.steps}: expected a whole number above 1`);
  if (availableParallelism() < 2) throw new InputError('bench workers: needs two cores');
  const seconds = (times: readonly StepTime[], part: 'phases' | 'step'): number => median(times.map((t) => t[part]));
  const controller = (times: readonly StepTime[]): string =>
    `${(100 * (1 - seconds(times, 'phases') / seconds(times, 'step'))).toFixed(0)} %`;
  const { ours, peer, load } = await pairedRounds({
    rounds,
    ours: async () => trainSteps({ workers: 2, config: String(flags.config), steps, slots: 32 }).times,
    peer: async () => trainSteps({ workers: 1, config: String(flags.config), steps, slots: 32 }).times,
    onRound: (round, two, one) => {
      if (two[0]?.reward !== one[0]?.reward || two.length !== one.length)
        throw new RunError('bench workers: one and two workers do not give the same rewards');
      log(
        `round ${round}: worker phases ${seconds(one, 'phases').toFixed(2)} s with one worker, ${seconds(two, 'phases').toFixed(2)} s with two; the controller's share of a step ${controller(one)} and ${controller(two)}`,
      );
    },
  });
  const measure = (name: string, part: 'phases' | 'step', goal: number | null): BenchResult =>
    compare({
      ...{ bench: 'workers', case: name, higher_is_better: true, goal, load },
      // Steps per second and core.
      ours: ours.map((times) => 0.5 / seconds(times, part)),
      peer: peer.map((times) => 1 / seconds(times, part)),
    });
  return [
    measure('worker phases, steps/s a core', 'phases', 0.9),
    ...rayAgainstLocal({ rounds, flags, log }),
    measure('whole step, steps/s a core', 'step', null),
  ];
}
