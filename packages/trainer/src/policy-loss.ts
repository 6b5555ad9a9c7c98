/** @file The configured policy loss, with its options under verl's names, and rollout correction before the loss. */
import {
  AlgorithmError,
  POLICY_LOSSES,
  type PolicyLoss,
  type PolicyLossOptions,
  type RolloutCorrectionOptions,
  rolloutCorrection,
} from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError, InvariantError } from '@frame-thinker/core';
import type { Metrics } from './tracker.ts';
import { type CountedGroup, mapGroups, response, responseMask } from './training-batch.ts';

export interface ConfiguredLoss {
  mode: string;
  run: PolicyLoss;
  options: PolicyLossOptions;
  /** Rows whose advantages are all 0 have no gradient. */
  idleWithoutAdvantage: boolean;
  /** A plain mean over rows, whatever the aggregation mode: a micro-batch weighs as many rows as it has. */
  meanOverRows: boolean;
}

function correctionOptions({ rollout_correction: c }: TrainConfig['algorithm']): RolloutCorrectionOptions {
  return {
    lossType: c.loss_type,
    rolloutIs: c.rollout_is,
    rolloutIsThreshold: c.rollout_is_threshold,
    rolloutIsBatchNormalize: c.rollout_is_batch_normalize,
    rolloutRs: c.rollout_rs,
    rolloutRsThreshold: c.rollout_rs_threshold,
  };
}

/** The loss of a configuration. @throws InputError when its options are not usable */
export function configuredLoss(config: Pick<TrainConfig, 'algorithm' | 'actor_rollout_ref' | 'data'>): ConfiguredLoss {
  const { actor } = config.actor_rollout_ref;
  const { policy_loss: p } = actor;
  const mode = config.algorithm.rollout_correction.bypass_mode ? 'bypass_mode' : p.loss_mode;
  const run = POLICY_LOSSES.get(mode);
  if (!run) throw new InvariantError(`loss ${mode} is in the schema but not in the registry`);
  const correction = correctionOptions(config.algorithm);
  try {
    const one = [[0]];
    rolloutCorrection({ oldLogProb: one, rolloutLogProb: one, mask: [[1]] }, correction);
  } catch (error) {
    throw error instanceof AlgorithmError ? new InputError(`algorithm.rollout_correction: ${error.message}`) : error;
  }
  return {
    mode,
    run,
    options: {
      lossAggMode: actor.loss_agg_mode,
      lossScaleFactor: actor.loss_scale_factor ?? config.data.max_response_length,
      clipRatio: actor.clip_ratio,
      clipRatioLow: actor.clip_ratio_low,
      clipRatioHigh: actor.clip_ratio_high,
      clipRatioC: actor.clip_ratio_c,
      tauPos: actor.tau_pos,
      tauNeg: actor.tau_neg,
      clipCovRatio: p.clip_cov_ratio,
      clipCovLb: p.clip_cov_lb,
      clipCovUb: p.clip_cov_ub,
      klCovRatio: p.kl_cov_ratio,
      ppoKlCoef: p.ppo_kl_coef,
      droBeta: p.dro_beta,
      rolloutCorrection: correction,
    },
    idleWithoutAdvantage: mode !== 'dro' && mode !== 'kl_cov',
    meanOverRows: mode === 'geo_mean',
  };
}

/**
 * Importance weights and rejection of old log-probs against the rollout's, once a step. Nothing in bypass mode (there the loss
 * does it for the current policy) and without options.
 */
export function withRolloutCorrection(
  groups: readonly CountedGroup[],
  { algorithm, mode }: { algorithm: TrainConfig['algorithm']; mode: string },
): { groups: CountedGroup[]; metrics: Metrics } {
  const options = correctionOptions(algorithm);
  const rows = groups.flatMap((group) => group.rows);
  const masks = rows.map(responseMask);
  const empty = masks.every((mask) => mask.every((m) => m === 0));
  if (mode === 'bypass_mode' || (!options.rolloutIs && !options.rolloutRs) || empty)
    return { groups: [...groups], metrics: {} };
  const { weights, mask, metrics } = rolloutCorrection(
    {
      oldLogProb: rows.map((row) => response(row.trajectory, row.oldLogProbs)),
      rolloutLogProb: rows.map((row) => response(row.trajectory, row.trajectory.logProbs)),
      mask: masks,
    },
    options,
  );
  const whole = ({ promptLength, ids }: { promptLength: number; ids: Int32Array }, values: ArrayLike<number>) => {
    const out = new Float32Array(ids.length);
    out.set(values, promptLength);
    return out;
  };
  return {
    groups: mapGroups(groups, (row, i) => ({
      ...row,
      mask: whole(row.trajectory, mask[i]!),
      ...(weights ? { isWeights: whole(row.trajectory, weights[i]!) } : {}),
    })),
    metrics,
  };
}
