/** @file Which rows a training step takes: shuffled anew in each epoch, the last incomplete batch dropped. A pure function of the step. */
import { createRng, InputError } from '@frame-thinker/core';

export interface QuestionSampler {
  stepsPerEpoch: number;
  /** Epoch of a step, from 0; steps count from 1. */
  epochOf(step: number): number;
  /** Row numbers of a step, in the order of the batch. */
  rowsOf(step: number): number[];
}

export function createQuestionSampler({
  rows,
  batchSize,
  seed,
  shuffle,
}: {
  rows: number;
  batchSize: number;
  seed: number;
  shuffle: boolean;
}): QuestionSampler {
  const stepsPerEpoch = Math.floor(rows / batchSize);
  if (stepsPerEpoch === 0)
    throw new InputError(
      `data.train_batch_size=${batchSize} is larger than the ${rows} training rows; lower it or add rows`,
    );
  let cached: { epoch: number; order: number[] } | undefined;
  const orderOf = (epoch: number): number[] => {
    if (cached?.epoch !== epoch) {
      const all = Array.from({ length: rows }, (_, i) => i);
      cached = { epoch, order: shuffle ? createRng(seed, 'shuffle', epoch).shuffled(all) : all };
    }
    return cached.order;
  };
  const epochOf = (step: number): number => Math.floor((step - 1) / stepsPerEpoch);
  return {
    stepsPerEpoch,
    epochOf,
    rowsOf: (step) => {
      const at = ((step - 1) % stepsPerEpoch) * batchSize;
      return orderOf(epochOf(step)).slice(at, at + batchSize);
    },
  };
}
