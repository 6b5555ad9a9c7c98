/** @file Advantages of the trajectories of a step, by the configured estimator. */
import { ADVANTAGE_ESTIMATORS, type AdvantageOptions } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { InvariantError, RunError } from '@frame-thinker/core';
import {
  aligned,
  type CountedGroup,
  type CountedRow,
  mapGroups,
  type RowGroup,
  response,
  responseMask,
} from './training-batch.ts';

/** A trajectory that takes part in the update. Arrays are aligned with ids. */
export interface TrainingRow extends CountedRow {
  /** Advantage of each token; 0 where the mask is 0. */
  advantages: Float32Array;
  returns: Float32Array;
}

export type TrainingGroup = RowGroup<TrainingRow>;

/** Estimators that judge a trajectory by itself: one without others of its question counts too. */
const BY_ITSELF: readonly string[] = ['gae', 'reinforce_plus_plus', 'remax'];

/** Whether an estimator compares the trajectories of a question. */
export const comparesGroup = (estimator: string): boolean => !BY_ITSELF.includes(estimator);

/** The estimator's settings. */
export function advantageOptions(algorithm: TrainConfig['algorithm']): AdvantageOptions {
  const { gdpo_reward_keys: keys, gdpo_reward_weights: weights } = algorithm;
  return {
    normAdvByStdInGrpo: algorithm.norm_adv_by_std_in_grpo,
    gamma: algorithm.gamma,
    lam: algorithm.lam,
    ...(keys ? { gdpoRewardKeys: keys } : {}),
    ...(weights ? { gdpoRewardWeights: weights } : {}),
  };
}

/** Rewards by name, one a row. @throws RunError naming `setting` when a row lacks one of `keys` */
export function namedScores(
  rows: readonly Pick<CountedRow, 'trajectory' | 'reward'>[],
  { keys, setting }: { keys: readonly string[]; setting: string },
): Record<string, number[]> {
  const named = rows.map(({ reward: { total, acc, format, other, extras } }): Record<string, number> => {
    return { ...extras, total, acc, format, other };
  });
  return Object.fromEntries(
    keys.map((key) => [
      key,
      named.map((scores, i) => {
        const score = scores[key];
        if (score === undefined)
          throw new RunError(
            `${setting}: the reward of ${rows[i]!.trajectory.uid} has no ${key} (it has ${Object.keys(scores).join(', ')})`,
          );
        return score;
      }),
    ]),
  );
}

/** The estimators that need the sum of squared probabilities of each token. */
export const needsSumPiSquared = (estimator: string): boolean => estimator.endsWith('optimal_token_baseline');

/** The rows' values of one kind, of the response; undefined when a row has none. */
function responsesOf(
  rows: readonly CountedRow[],
  pick: (row: CountedRow) => Float32Array | undefined,
): Float32Array[] | undefined {
  const all = rows.map((row) => {
    const values = pick(row);
    return values && response(row.trajectory, values);
  });
  return all.every((values) => values !== undefined) ? all : undefined;
}

/** @param baselines remax: reward of the greedy answer, by question */
export function estimateAdvantages(
  groups: readonly CountedGroup[],
  {
    estimator,
    options,
    baselines,
  }: { estimator: string; options: AdvantageOptions; baselines?: ReadonlyMap<string, number> | undefined },
): TrainingGroup[] {
  const estimate = ADVANTAGE_ESTIMATORS.get(estimator);
  if (!estimate) throw new InvariantError(`advantage estimator ${estimator} is in the schema but not in the registry`);
  const rows = groups.flatMap((group) => group.rows);
  if (rows.length === 0) return groups.map(({ group }) => ({ group, rows: [] }));
  const values = responsesOf(rows, (row) => row.values);
  const sumPiSquared = responsesOf(rows, (row) => row.sumPiSquared);
  const rolloutIsWeights = responsesOf(rows, (row) => row.isWeights);
  const { advantages, returns } = estimate(
    {
      tokenLevelRewards: rows.map((row) => row.rewards),
      mask: rows.map(responseMask),
      // By place and not by uid: a question may come again in a later batch of a step.
      index: groups.flatMap((group, i) => group.rows.map(() => String(i))),
      oldLogProbs: responsesOf(rows, (row) => row.oldLogProbs)!,
      ...(values ? { values } : {}),
      ...(sumPiSquared ? { sumPiSquared } : {}),
      ...(rolloutIsWeights ? { rolloutIsWeights } : {}),
      scores: namedScores(rows, { keys: options.gdpoRewardKeys ?? [], setting: 'algorithm.gdpo_reward_keys' }),
      ...(baselines ? { rewardBaselines: rows.map(({ trajectory }) => baselines.get(trajectory.uid)!) } : {}),
    },
    options,
  );
  return mapGroups(groups, (row, i) => ({
    ...row,
    advantages: aligned(row, advantages[i]!),
    returns: aligned(row, returns[i]!),
  }));
}

/** The same rows with nothing to learn from them. */
export const withoutAdvantages = (groups: readonly TrainingGroup[]): TrainingGroup[] =>
  mapGroups(groups, (row) => ({ ...row, advantages: new Float32Array(row.advantages.length) }));
