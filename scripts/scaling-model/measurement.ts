/** @file What `pnpm bench scaling --out FILE` writes, and scripts/scaling-model.ts reads. */
import type { StepTime } from '../worker-phases.ts';

/** Milliseconds of moving all workers' gradient sums (8 bytes a parameter and worker) to the controller, and the total back. */
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
  /** Milliseconds of a call with 1 kB there and back, and of a MiB there and back beyond it. */
  messages: { call: number; megabyte: number };
  transfers: readonly TransferCosts[];
  runs: readonly ScalingRun[];
}
