/** @file The policy update: mini-batches, micro-batches, the loss's cotangents, one AdamW step a mini-batch. */
import { aggLoss, POLICY_LOSSES, type PolicyLossOptions } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { createRng, InvariantError, RunError } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import type { TrainingGroup, TrainingRow } from './group-advantages.ts';
import { RolloutDifference } from './rollout-difference.ts';
import type { Metrics } from './tracker.ts';

type ActorConfig = TrainConfig['actor_rollout_ref']['actor'];

export interface ActorUpdateOptions {
  worker: PolicyWorker;
  actor: ActorConfig;
  temperature: number;
  ban: readonly number[];
  /** Learning rate of the k-th optimizer step of this update. */
  learningRate: (k: number) => number;
  /** Old log-probs, aligned with ids; absent: the rollout's own. */
  oldLogProbs?: ReadonlyMap<TrainingRow, Float32Array>;
  step: number;
  seed: number;
}

export interface ActorUpdate {
  metrics: Metrics;
  /** Optimizer steps tried. */
  optimizerSteps: number;
  skippedUpdates: number;
}

const response = (row: TrainingRow, values: Float32Array | Uint8Array) => values.subarray(row.trajectory.promptLength);

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** Micro-batches: the rows of one question each, or so many rows. */
function microBatches(mini: readonly TrainingGroup[], size: number | null): TrainingRow[][] {
  const groups = mini.map(({ rows }) => rows).filter((rows) => rows.length > 0);
  return size === null ? groups : chunks(groups.flat(), size);
}

/**
 * Updates the policy on the groups of a step.
 * On-policy (no optimizer step since the rollout) the rollout's own log-probs give ratio and cotangents, so a micro-batch costs one
 * forward and backward; after the first optimizer step of an update the current log-probs are computed first.
 */
export async function updateActor(groups: readonly TrainingGroup[], options: ActorUpdateOptions): Promise<ActorUpdate> {
  const { worker, actor, temperature, ban } = options;
  const lossOf = POLICY_LOSSES.get(actor.policy_loss.loss_mode);
  if (!lossOf) throw new InvariantError(`loss ${actor.policy_loss.loss_mode} is in the schema but not in the registry`);
  const difference = new RolloutDifference();
  const sums: Record<string, number> = {};
  let weight = 0;
  let optimizerSteps = 0;
  let skippedUpdates = 0;
  let pgLoss = 0;
  let entropyLoss = 0;
  let gradNorm = 0;
  let lr = 0;
  let idle = 0;

  for (let epoch = 0; epoch < actor.ppo_epochs; epoch++) {
    const order = actor.shuffle ? createRng(options.seed, 'permute', options.step, epoch).shuffled(groups) : groups;
    for (const mini of chunks(order, actor.ppo_mini_batch_size)) {
      const rows = mini.flatMap((group) => group.rows);
      const micros = microBatches(mini, actor.ppo_micro_batch_size_per_gpu);
      const whole = {
        lossAggMode: actor.loss_agg_mode,
        batchNumTokens: rows.reduce((sum, { trajectory }) => sum + trajectory.mask.reduce((a, b) => a + b, 0), 0),
        globalBatchSize: rows.length,
      };
      const micro1 = { lossAggMode: actor.loss_agg_mode };
      for (const [m, micro] of micros.entries()) {
        // A micro-batch whose advantages are all 0 has no policy gradient.
        if (actor.entropy_coeff === 0 && micro.every(({ advantages }) => advantages.every((a) => a === 0))) {
          idle++;
          continue;
        }
        const batch = {
          id: `${options.step}:${epoch}:${optimizerSteps}:${m}`,
          trajectories: micro.map(({ trajectory }) => trajectory),
        };
        const current = optimizerSteps === 0 ? undefined : (await worker.forward(batch, { temperature, ban })).logProbs;
        const logProbs = micro.map(
          (row, i) => current?.[i] ?? options.oldLogProbs?.get(row) ?? row.trajectory.logProbs,
        );
        const mask = micro.map((row) => response(row, row.trajectory.mask));
        const lossOptions: PolicyLossOptions = {
          ...(actor.loss_norm === 'mini' ? whole : micro1),
          clipRatio: actor.clip_ratio,
          clipRatioLow: actor.clip_ratio_low,
          clipRatioHigh: actor.clip_ratio_high,
          clipRatioC: actor.clip_ratio_c,
        };
        const scale = actor.loss_norm === 'mini' ? 1 : 1 / micros.length;
        const { loss, metrics, gradLogProb } = lossOf(
          {
            oldLogProb: micro.map((row) => response(row, options.oldLogProbs?.get(row) ?? row.trajectory.logProbs)),
            logProb: micro.map((row, i) => response(row, logProbs[i]!)),
            advantages: micro.map((row) => response(row, row.advantages)),
            mask,
          },
          lossOptions,
        );
        const { gradLossMat } = aggLoss(mask, mask, lossOptions); // d(aggregated entropy)/d(entropy of a token)
        const spread = (row: TrainingRow, values: ArrayLike<number>, factor: number): Float32Array => {
          const out = new Float32Array(row.trajectory.ids.length);
          for (let i = 0; i < values.length; i++)
            if (row.trajectory.mask[row.trajectory.promptLength + i])
              out[row.trajectory.promptLength + i] = values[i]! * factor;
          return out;
        };
        const fresh = await worker.backward(
          batch,
          {
            dLogProbs: micro.map((row, i) => spread(row, gradLogProb[i]!, scale)),
            dEntropy: micro.map((row, i) => spread(row, gradLossMat[i]!, -actor.entropy_coeff * scale)),
          },
          { temperature, ban },
        );
        if (optimizerSteps === 0)
          micro.forEach((row, i) => {
            difference.add(row.trajectory, fresh.logProbs[i]!);
          });
        pgLoss += loss * scale;
        if (actor.entropy_coeff !== 0)
          entropyLoss +=
            scale *
            aggLoss(
              micro.map((row, i) => response(row, fresh.entropy[i]!)),
              mask,
              lossOptions,
            ).loss;
        for (const [name, value] of Object.entries(metrics)) sums[name] = (sums[name] ?? 0) + value;
        weight++;
      }
      lr = options.learningRate(optimizerSteps);
      const update = await worker.applyUpdate({
        lr,
        betas: actor.optim.betas as [number, number],
        eps: actor.optim.eps,
        weightDecay: actor.optim.weight_decay,
        maxNorm: actor.grad_clip,
      });
      optimizerSteps++;
      if (!update.applied) skippedUpdates++;
      gradNorm += update.gradNorm;
    }
  }
  if (optimizerSteps === 0) throw new RunError(`step ${options.step}: nothing to train on`);
  const minis = optimizerSteps;
  return {
    optimizerSteps,
    skippedUpdates,
    metrics: {
      ...Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / Math.max(1, weight)])),
      'actor/pg_loss': pgLoss / minis,
      ...(actor.entropy_coeff === 0 ? {} : { 'actor/entropy': entropyLoss / minis }),
      'actor/grad_norm': gradNorm / minis,
      'actor/lr': lr,
      'actor/skipped_updates': skippedUpdates,
      'actor/idle_micro_batches': idle,
      ...difference.metrics(),
    },
  };
}
