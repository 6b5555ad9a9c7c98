/** @file The critic: its values of a step's trajectories, and its update by the clipped value loss. */
import { maskedMean, valueLoss } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { createRng } from '@frame-thinker/core';
import type { CriticWorker } from '@frame-thinker/worker-pool';
import type { TrainingGroup } from './group-advantages.ts';
import { microBatches, updateBatches } from './micro-batches.ts';
import type { UpdateCounts } from './run-checkpoints.ts';
import type { Metrics } from './tracker.ts';
import { aligned, type CountedGroup, chunks, mapGroups, response, responseMask, tokensOf } from './training-batch.ts';

/** Whether a configuration trains a critic. */
export const trainsCritic = ({ critic, algorithm }: Pick<TrainConfig, 'critic' | 'algorithm'>): boolean =>
  critic.enable ?? algorithm.adv_estimator === 'gae';

/** The critic's values of all rows, one question in a batch; given out at once, so that every worker has some. */
export async function withValues(groups: readonly CountedGroup[], worker: CriticWorker): Promise<CountedGroup[]> {
  const found = await Promise.all(
    groups.map(({ rows }) => {
      if (rows.length === 0) return [];
      const trajectories = rows.map(({ trajectory }) => trajectory);
      return worker.values({ id: `values:${trajectories[0]!.uid}`, trajectories });
    }),
  );
  const values = found.flat();
  return mapGroups(groups, (row, i) => ({ ...row, values: values[i]! }));
}

export interface CriticUpdateOptions {
  worker: CriticWorker;
  critic: TrainConfig['critic'];
  /** mini: the mean is over the whole mini-batch; micro: the mean of micro-batch means. */
  lossNorm: 'mini' | 'micro';
  lossScaleFactor: number;
  /** Learning rate of the k-th optimizer step of this update. */
  learningRate: (k: number) => number;
  step: number;
  seed: number;
  /** Updates skipped in a row before this one for a gradient that was not finite, and after how many to end. */
  nonFinite: { inARow: number; limit: number };
}

/**
 * Moves the values towards the returns. Before the first optimizer step the predictions are the values that the advantages were
 * made with, so that a micro-batch costs one forward and backward; after it they are computed first.
 */
export async function updateCritic(
  groups: readonly TrainingGroup[],
  options: CriticUpdateOptions,
): Promise<UpdateCounts & { metrics: Metrics }> {
  const { worker, critic, lossNorm, step, seed } = options;
  const totals = { loss: 0, clipped: 0, predicted: 0, tokens: 0, gradNorm: 0 };
  let [optimizerSteps, skippedUpdates, lr] = [0, 0, 0];
  let skippedInARow = options.nonFinite.inARow;

  epochs: for (let epoch = 0; epoch < critic.ppo_epochs; epoch++) {
    const order = critic.shuffle ? createRng(seed, 'permute', step, epoch).shuffled(groups) : groups;
    for (const mini of chunks(order, critic.ppo_mini_batch_size)) {
      const rows = mini.flatMap((group) => group.rows);
      const micros = microBatches(mini, updateBatches(critic, 'critic'));
      const shared =
        lossNorm === 'mini'
          ? { batchNumTokens: rows.reduce((sum, row) => sum + tokensOf(row), 0), globalBatchSize: rows.length }
          : {};
      const working = [...micros.entries()].flatMap(([m, micro]) => {
        const tokens = micro.reduce((sum, row) => sum + tokensOf(row), 0);
        if (tokens === 0) return [];
        const trajectories = micro.map(({ trajectory }) => trajectory);
        return [{ micro, tokens, batch: { id: `critic:${step}:${epoch}:${optimizerSteps}:${m}`, trajectories } }];
      });
      const current = await Promise.all(
        working.map(({ micro, batch }) =>
          optimizerSteps === 0 ? micro.map(({ values }) => values!) : worker.values(batch),
        ),
      );
      // Given out at once, so that every worker has some; what comes back is added up in their order.
      const finished = await Promise.all(
        working.map(async ({ micro, tokens, batch }, k) => {
          const mask = micro.map(responseMask);
          const predictions = micro.map(({ trajectory }, i) => response(trajectory, current[k]![i]!));
          const { loss, clipFraction, gradPredictions } = valueLoss({
            predictions,
            values: micro.map(({ trajectory, values }) => response(trajectory, values!)),
            returns: micro.map(({ trajectory, returns }) => response(trajectory, returns)),
            mask,
            clipRange: critic.cliprange_value,
            lossAggMode: critic.loss_agg_mode,
            lossScaleFactor: options.lossScaleFactor,
            ...shared,
          });
          const share = critic.use_dynamic_bsz ? micro.length / rows.length : 1 / micros.length;
          const scale = lossNorm === 'mini' ? 1 : share;
          await worker.backwardValues(
            batch,
            micro.map((row, i) => aligned(row, gradPredictions[i]!, scale)),
          );
          return { loss: scale * loss, clipFraction, tokens, predicted: maskedMean(predictions, mask) };
        }),
      );
      for (const { loss, clipFraction, tokens, predicted } of finished) {
        totals.loss += loss;
        totals.clipped += clipFraction * tokens;
        totals.predicted += predicted * tokens;
        totals.tokens += tokens;
      }
      lr = options.learningRate(optimizerSteps);
      const update = await worker.applyUpdate({
        lr,
        betas: critic.optim.betas as [number, number],
        eps: critic.optim.eps,
        weightDecay: critic.optim.weight_decay,
        maxNorm: critic.grad_clip,
      });
      optimizerSteps++;
      totals.gradNorm += update.gradNorm;
      if (!update.applied) skippedUpdates++;
      skippedInARow = update.applied ? 0 : skippedInARow + 1;
      if (skippedInARow >= options.nonFinite.limit) break epochs;
    }
  }
  const steps = Math.max(1, optimizerSteps);
  const tokens = Math.max(1, totals.tokens);
  return {
    optimizerSteps,
    skippedUpdates,
    skippedInARow,
    metrics: {
      'critic/vf_loss': totals.loss / steps,
      'critic/vf_clipfrac': totals.clipped / tokens,
      'critic/vpred_mean': totals.predicted / tokens,
      'critic/grad_norm': totals.gradNorm / steps,
      'critic/lr': lr,
      'critic/skipped_updates': skippedUpdates,
    },
  };
}
