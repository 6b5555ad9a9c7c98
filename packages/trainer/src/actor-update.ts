/** @file The policy update: mini-batches, micro-batches, the loss's cotangents, one AdamW step a mini-batch. */
import { type AggOptions, aggLoss, klPenalty, type PolicyLossOptions } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { createRng, RunError } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import type { TrainingGroup, TrainingRow } from './group-advantages.ts';
import { balancedMicroBatches, microBatches, updateBatches } from './micro-batches.ts';
import type { ConfiguredLoss } from './policy-loss.ts';
import { RolloutDifference } from './rollout-difference.ts';
import type { Metrics } from './tracker.ts';
import { aligned, chunks, response, responseMask, tokensOf } from './training-batch.ts';

type ActorConfig = TrainConfig['actor_rollout_ref']['actor'];

export interface ActorUpdateOptions {
  worker: PolicyWorker;
  actor: ActorConfig;
  loss: ConfiguredLoss;
  temperature: number;
  ban: readonly number[];
  /** Learning rate of the k-th optimizer step of this update. */
  learningRate: (k: number) => number;
  step: number;
  seed: number;
  /** Workers over which the micro-batches are balanced; absent: in the order of the questions. */
  balanceOver?: number;
  /** Updates skipped in a row before this one for a gradient that was not finite, and after how many to end. */
  nonFinite: { inARow: number; limit: number };
}

export interface ActorUpdate {
  metrics: Metrics;
  /** Optimizer steps tried. */
  optimizerSteps: number;
  /** Of those, skipped because the gradient was not finite; and how many in a row up to now. */
  skippedUpdates: number;
  skippedInARow: number;
}

/** Whether nothing in a micro-batch has a gradient. */
function isIdle(rows: readonly TrainingRow[], actor: ActorConfig, loss: ConfiguredLoss): boolean {
  if (rows.every((row) => tokensOf(row) === 0)) return true;
  if (actor.entropy_coeff !== 0 || actor.use_kl_loss || !loss.idleWithoutAdvantage) return false;
  return rows.every(({ advantages }) => advantages.every((a) => a === 0));
}

interface LossGradients {
  loss: number;
  klLoss: number;
  metrics: Record<string, number>;
  dLogProbs: Float32Array[];
  dEntropy: Float32Array[];
}

/**
 * The loss of a micro-batch and its cotangents: policy loss + kl_loss_coef · KL − entropy_coeff · entropy.
 * @param logProbs current log-probs, aligned with ids
 * @param scale of the policy loss, and of the KL and entropy
 */
function lossGradients(
  rows: readonly TrainingRow[],
  logProbs: readonly Float32Array[],
  {
    actor,
    loss: { run },
    options,
    scale,
  }: { actor: ActorConfig; loss: ConfiguredLoss; options: PolicyLossOptions; scale: { policy: number; rest: number } },
): LossGradients {
  const mask = rows.map(responseMask);
  const logProb = rows.map(({ trajectory }, i) => response(trajectory, logProbs[i]!));
  const { loss, metrics, gradLogProb } = run(
    {
      oldLogProb: rows.map(({ trajectory, oldLogProbs }) => response(trajectory, oldLogProbs)),
      logProb,
      advantages: rows.map(({ trajectory, advantages }) => response(trajectory, advantages)),
      mask,
      ...(rows.every((row) => row.isWeights)
        ? { rolloutIsWeights: rows.map(({ trajectory, isWeights }) => response(trajectory, isWeights!)) }
        : {}),
    },
    options,
  );
  const { gradLossMat } = aggLoss(mask, mask, options); // d(aggregated values)/d(value of a token)
  const dLogProbs = rows.map((row, i) => aligned(row, gradLogProb[i]!, scale.policy));
  let klLoss = 0;
  if (actor.use_kl_loss) {
    const refLogProb = rows.map(({ trajectory, refLogProbs }) => response(trajectory, refLogProbs!));
    const { kl, gradLogProb: gradKl } = klPenalty(logProb, refLogProb, actor.kl_loss_type);
    klLoss = aggLoss(kl, mask, options).loss * scale.rest;
    for (const [i, row] of rows.entries()) {
      const gradient = gradKl[i]!.map((g, t) => (mask[i]![t] ? g * gradLossMat[i]![t]! : 0));
      for (const [k, d] of aligned(row, gradient, actor.kl_loss_coef * scale.rest).entries()) dLogProbs[i]![k]! += d;
    }
  }
  return {
    loss: loss * scale.policy,
    klLoss,
    metrics,
    dLogProbs,
    dEntropy: rows.map((row, i) => aligned(row, gradLossMat[i]!, -actor.entropy_coeff * scale.rest)),
  };
}

/**
 * Updates the policy on the groups of a step.
 * On-policy (no optimizer step since the rollout) the old log-probs give ratio and cotangents, so a micro-batch costs one
 * forward and backward; after the first optimizer step of an update the current log-probs are computed first.
 */
export async function updateActor(groups: readonly TrainingGroup[], options: ActorUpdateOptions): Promise<ActorUpdate> {
  const { worker, actor, loss, step, seed } = options;
  const scoring = { temperature: options.temperature, ban: options.ban };
  const difference = new RolloutDifference();
  const sums: Record<string, number> = {};
  const totals = { loss: 0, klLoss: 0, entropy: 0, gradNorm: 0 };
  let [weight, optimizerSteps, skippedUpdates, lr, idle] = [0, 0, 0, 0, 0];
  let skippedInARow = options.nonFinite.inARow;

  epochs: for (let epoch = 0; epoch < actor.ppo_epochs; epoch++) {
    const order = actor.shuffle ? createRng(seed, 'permute', step, epoch).shuffled(groups) : groups;
    for (const mini of chunks(order, actor.ppo_mini_batch_size)) {
      const rows = mini.flatMap((group) => group.rows);
      const batches = updateBatches(actor, 'actor_rollout_ref.actor');
      const micros =
        options.balanceOver === undefined
          ? microBatches(mini, batches)
          : balancedMicroBatches(mini, { ...batches, workers: options.balanceOver });
      const whole = actor.loss_norm === 'mini';
      const shared: Partial<AggOptions> = whole
        ? { batchNumTokens: rows.reduce((sum, row) => sum + tokensOf(row), 0), globalBatchSize: rows.length }
        : {};
      const working = [...micros.entries()].flatMap(([m, micro]) => {
        if (isIdle(micro, actor, loss)) return [];
        const trajectories = micro.map(({ trajectory }) => trajectory);
        return [{ m, micro, batch: { id: `${step}:${epoch}:${optimizerSteps}:${m}`, trajectories } }];
      });
      idle += micros.length - working.length;
      const current =
        optimizerSteps === 0
          ? undefined
          : await Promise.all(working.map(({ batch }) => worker.forward(batch, scoring)));
      const update = optimizerSteps;
      // Given out at once, so that every worker has some; what comes back is added up in their order.
      const finished = await Promise.all(
        working.map(async ({ m, micro, batch }, k) => {
          const lossOptions: PolicyLossOptions = {
            ...loss.options,
            ...shared,
            permutation: (n) =>
              createRng(seed, 'permute', step, update, 2 + m).shuffled(Array.from({ length: n }, (_, i) => i)),
          };
          // The reference's mean of micro-batch means; batches by tokens differ in their number of rows and weigh by it.
          const share = actor.use_dynamic_bsz ? micro.length / rows.length : 1 / micros.length;
          const rest = whole ? 1 : share;
          const policy = whole && loss.meanOverRows ? micro.length / rows.length : rest;
          const found = lossGradients(
            micro,
            micro.map((row, i) => current?.[k]?.logProbs[i] ?? row.oldLogProbs),
            { actor, loss, options: lossOptions, scale: { policy, rest } },
          );
          const { dLogProbs, dEntropy, ...parts } = found;
          const fresh = await worker.backward(batch, { dLogProbs, dEntropy }, scoring);
          return { micro, found: parts, fresh, rest, lossOptions };
        }),
      );
      for (const { micro, found, fresh, rest, lossOptions } of finished) {
        if (optimizerSteps === 0)
          micro.forEach((row, i) => {
            difference.add(row.trajectory, fresh.logProbs[i]!);
          });
        totals.loss += found.loss;
        totals.klLoss += found.klLoss;
        if (actor.entropy_coeff !== 0) {
          const entropy = micro.map(({ trajectory }, i) => response(trajectory, fresh.entropy[i]!));
          totals.entropy += rest * aggLoss(entropy, micro.map(responseMask), lossOptions).loss;
        }
        for (const [name, value] of Object.entries(found.metrics)) sums[name] = (sums[name] ?? 0) + value;
        weight++;
      }
      lr = options.learningRate(optimizerSteps);
      const result = await worker.applyUpdate({
        lr,
        betas: actor.optim.betas as [number, number],
        eps: actor.optim.eps,
        weightDecay: actor.optim.weight_decay,
        maxNorm: actor.grad_clip,
      });
      optimizerSteps++;
      totals.gradNorm += result.gradNorm;
      if (!result.applied) skippedUpdates++;
      skippedInARow = result.applied ? 0 : skippedInARow + 1;
      if (skippedInARow >= options.nonFinite.limit) break epochs;
    }
  }
  if (optimizerSteps === 0) throw new RunError(`step ${step}: nothing to train on`);
  return {
    optimizerSteps,
    skippedUpdates,
    skippedInARow,
    metrics: {
      ...Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / Math.max(1, weight)])),
      'actor/pg_loss': totals.loss / optimizerSteps,
      ...(actor.entropy_coeff === 0 ? {} : { 'actor/entropy': totals.entropy / optimizerSteps }),
      ...(actor.use_kl_loss
        ? { 'actor/kl_loss': totals.klLoss / optimizerSteps, 'actor/kl_coef': actor.kl_loss_coef }
        : {}),
      'actor/grad_norm': totals.gradNorm / optimizerSteps,
      'actor/lr': lr,
      'actor/skipped_updates': skippedUpdates,
      'actor/idle_micro_batches': idle,
      ...difference.metrics(),
    },
  };
}
