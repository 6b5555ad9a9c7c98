/** @file What `pnpm bench scaling --out FILE` writes, and scripts/scaling-model.ts reads. */
import type { StepTime } from '../worker-phases.ts';

/** Milliseconds of adding all workers' gradient sums (8 bytes a parameter and worker), and of giving the total to all. */
export interface TransferCosts {
  workers: number;
  parameters: number;
  collect: number;
  spread: number;
}

/** A training run's steps, the first left out. */
export interface ScalingRun {
  workers: number;
  round: number;
  steps: readonly StepTime[];
}

export interface ScalingMeasurement {
  pool: 'local';
  cpu: string;
  cores: number;
  /** Questions in a step, each with n answers: a share of the rollout, and a micro-batch where something is learnt from it. */
  questions: number;
  n: number;
  load: number;
  /** Tokens of each question's longest answer with its prompt, of each step but the first. */
  longest: readonly (readonly number[])[];
  /** Milliseconds of a call with 1 kB there and back, and of a MiB there and back beyond it. */
  messages: { call: number; megabyte: number };
  transfers: readonly TransferCosts[];
  runs: readonly ScalingRun[];
}

/** A line a part and a line a run; milliseconds and seconds to five digits. */
export function formatMeasurement({ runs, ...rest }: ScalingMeasurement): string {
  const json = (value: unknown): string =>
    JSON.stringify(value, (_, item) =>
      typeof item === 'number' && !Number.isInteger(item) ? Number(item.toPrecision(5)) : item,
    );
  const parts = Object.entries(rest).map(([key, value]) => `"${key}": ${json(value)}`);
  return `{\n${parts.join(',\n')},\n"runs": [\n${runs.map(json).join(',\n')}\n]\n}\n`;
}

/** What `pnpm bench scaling --costs` prints. */
export interface LocalCosts extends Pick<ScalingMeasurement, 'cpu' | 'cores' | 'load' | 'messages' | 'transfers'> {}

/** What `pnpm bench ray` prints of a cluster of one node: milliseconds of a small call, a MiB there and back, and two workers' sums. */
export interface RayCosts {
  cpu: string;
  cores: number;
  load: number;
  parameters: number;
  call: number;
  megabyte: number;
  /** Two workers' sums added. */
  collect: number;
  /** The total given to one. */
  spread: number;
}
