/** @file Which batch size is what: the sizes that follow from the configuration. */
import type { TrainConfig } from './schema/train.ts';

/** The sizes of one training step. */
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

/** Sizes that don't divide each other give fractions: refused by the checks of `loadConfig`. */
export function batchTable(config: TrainConfig): BatchTable {
  const { actor, rollout } = config.actor_rollout_ref;
  const prompts = config.data.train_batch_size;
  const trajectoriesPerMiniBatch = actor.ppo_mini_batch_size * rollout.n;
  const trajectoriesPerMicroBatch = actor.ppo_micro_batch_size_per_gpu ?? rollout.n;
  const miniBatches = prompts / actor.ppo_mini_batch_size;
  return {
    prompts,
    trajectories: prompts * rollout.n,
    miniBatches,
    trajectoriesPerMiniBatch,
    trajectoriesPerMicroBatch,
    microBatchesPerMiniBatch: trajectoriesPerMiniBatch / trajectoriesPerMicroBatch,
    optimizerSteps: miniBatches * actor.ppo_epochs,
  };
}

/** The table as aligned lines. */
export function printBatches(table: BatchTable): string {
  const rows: [string, number, string][] = [
    ['questions in a training step', table.prompts, 'data.train_batch_size'],
    ['trajectories in a training step', table.trajectories, 'x rollout.n'],
    ['mini-batches in a pass', table.miniBatches, '/ actor.ppo_mini_batch_size'],
    ['trajectories in a mini-batch', table.trajectoriesPerMiniBatch, 'actor.ppo_mini_batch_size x rollout.n'],
    ['trajectories in a micro-batch', table.trajectoriesPerMicroBatch, 'actor.ppo_micro_batch_size_per_gpu'],
    ['micro-batches in a mini-batch', table.microBatchesPerMiniBatch, ''],
    ['optimizer steps in a training step', table.optimizerSteps, 'mini-batches x actor.ppo_epochs'],
  ];
  return rows
    .map(([name, value, from]) => `${name.padEnd(35)} ${String(value).padStart(6)}  ${from}`.trimEnd())
    .join('\n');
}
