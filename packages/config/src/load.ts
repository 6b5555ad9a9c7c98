/** @file A configuration from its parts: defaults < YAML file < `key=value`. */
import type { TrainConfig } from './schema/train.ts';

/** The sizes that follow from the configuration, for one training step. */
export interface BatchTable {
  /** Questions. */
  prompts: number;
  /** prompts x rollout.n */
  trajectories: number;
  /** Mini-batches in one pass over the batch. */
  miniBatches: number;
  trajectoriesPerMiniBatch: number;
  trajectoriesPerMicroBatch: number;
  microBatchesPerMiniBatch: number;
  /** miniBatches x ppo_epochs */
  optimizerSteps: number;
}

export interface LoadedConfig {
  config: TrainConfig;
  /** Worker processes that will run. */
  workers: number;
  batches: BatchTable;
  /** Things to say once at the start: what was lowered, ignored or filled in. */
  notes: string[];
  /** Keys that the user set and that have no effect, with the reason. */
  withoutEffect: { key: string; reason: string }[];
}

/**
 * @param options.file YAML file; absent: defaults
 * @param options.overrides `key=value` items of a command line
 * @throws InputError with one line a problem: `file:line:column key: what is wrong`.
 */
export function loadConfig(options: { file?: string; overrides?: readonly string[] }): LoadedConfig {
  throw new Error(`not there yet: ${options.file}`);
}

/** The resolved configuration as YAML. */
export function printResolved(config: TrainConfig): string {
  throw new Error(`not there yet: ${config.trainer.project_name}`);
}
