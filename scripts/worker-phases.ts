/** @file What a training run's metrics say of the time in its workers. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSafetensors } from '@frame-thinker/checkpoint';

/** What workers do in a step; the rest is the controller's. */
const WORKER_PHASES = ['gen', 'old_log_prob', 'update_actor'];

export interface StepTime {
  /** Seconds in the worker phases. */
  phases: number;
  /** Seconds of the whole step. */
  step: number;
  /** Seconds of each worker phase. */
  each: Readonly<Record<string, number>>;
  /** Share of the questions whose answers all have one reward: nothing is learnt from them, and they cost no update. */
  idle: number;
  reward: number | undefined;
}

/** Of each step but the first: tokens of each trajectory, question by question. */
export function trajectoryTokens(runFolder: string): number[][] {
  const folder = join(runFolder, 'trajectories/train');
  return readdirSync(folder)
    .filter((file) => file.endsWith('.safetensors'))
    .sort()
    .slice(1)
    .map((file) => {
      const tensors = openSafetensors(join(folder, file));
      try {
        return Array.from(tensors.read('lengths').data as Int32Array);
      } finally {
        tensors.close();
      }
    });
}

/** Of each step of the run but the first, which compiles. */
export function stepTimes(runFolder: string): StepTime[] {
  const lines = readFileSync(join(runFolder, 'metrics.jsonl'), 'utf8').split('\n').filter(Boolean);
  const steps = lines
    .map((line) => JSON.parse(line) as Record<string, number>)
    .filter((line) => 'timing_s/gen' in line);
  return steps.slice(1).map((line) => ({
    phases: WORKER_PHASES.reduce((sum, phase) => sum + (line[`timing_s/${phase}`] ?? 0), 0),
    step: line['timing_s/step']!,
    each: Object.fromEntries(WORKER_PHASES.map((phase) => [phase, line[`timing_s/${phase}`] ?? 0])),
    idle: line['critic/frac_reward_zero_std']!,
    reward: line['critic/score/mean'],
  }));
}
