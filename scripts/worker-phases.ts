/** @file What a training run's metrics say of the time in its workers. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What workers do in a step; the rest is the controller's. */
const WORKER_PHASES = ['gen', 'old_log_prob', 'update_actor'];

export interface StepTime {
  /** Seconds in the worker phases. */
  phases: number;
  /** Seconds of the whole step. */
  step: number;
  reward: number | undefined;
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
    reward: line['critic/score/mean'],
  }));
}
