/** @file Advantage estimators by verl's names. */
import { checkLengths } from '../rows.ts';
import type { AdvantageEstimator } from '../types.ts';
import {
  gdpo,
  gpg,
  grpo,
  grpoPassk,
  grpoVectorized,
  opo,
  reinforcePlusPlusBaseline,
  rloo,
  rlooVectorized,
} from './outcome.ts';
import { gae, reinforcePlusPlus, remax } from './temporal.ts';
import { optimalTokenBaseline, tirOptimalTokenBaseline } from './token-baselines.ts';

const checked =
  (name: string, estimator: AdvantageEstimator): AdvantageEstimator =>
  (batch, options) => {
    const { tokenLevelRewards, values, oldLogProbs, sumPiSquared, rolloutIsWeights } = batch;
    checkLengths(name, batch.mask, { tokenLevelRewards, values, oldLogProbs, sumPiSquared, rolloutIsWeights });
    return estimator(batch, options);
  };

/** Advantage estimators by verl's names. `gae` needs values. */
export const ADVANTAGE_ESTIMATORS: ReadonlyMap<string, AdvantageEstimator> = new Map(
  Object.entries({
    gae,
    grpo,
    grpo_vectorized: grpoVectorized,
    grpo_passk: grpoPassk,
    rloo,
    rloo_vectorized: rlooVectorized,
    reinforce_plus_plus: reinforcePlusPlus,
    reinforce_plus_plus_baseline: reinforcePlusPlusBaseline,
    remax,
    opo,
    gpg,
    gdpo,
    optimal_token_baseline: optimalTokenBaseline,
    tir_optimal_token_baseline: tirOptimalTokenBaseline,
  }).map(([name, estimator]) => [name, checked(name, estimator)]),
);
