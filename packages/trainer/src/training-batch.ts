/** @file The trajectories of a step that take part in the update, and what is known about each. */
import type { Reward, Trajectory } from '@frame-thinker/core';
import type { ScoredGroup } from './scored-groups.ts';

/** A trajectory that counts. Arrays are aligned with ids, `rewards` with the response. */
export interface CountedRow {
  trajectory: Trajectory;
  reward: Reward;
  /** 1 on the tokens of the loss: those that were sampled, less what rollout correction rejects. */
  mask: ArrayLike<number>;
  /** Log-probs of the policy before the update: the rollout's own, or recomputed. */
  oldLogProbs: Float32Array;
  /** Log-probs of the frozen reference policy. */
  refLogProbs?: Float32Array;
  /** The critic's values, before the update. */
  values?: Float32Array;
  /** Σ over the vocabulary of π², of the policy before the update. */
  sumPiSquared?: Float32Array;
  /** Importance weights of rollout correction. */
  isWeights?: Float32Array;
  /** Token-level rewards: the total on the last token (verl), less the KL penalty where it is used. */
  rewards: Float64Array;
}

/** The rows of one question; none when the question is left out. */
export interface RowGroup<Row> {
  group: ScoredGroup;
  rows: Row[];
}

export type CountedGroup = RowGroup<CountedRow>;

/** The part of an aligned array that belongs to the response. */
export const response = <T extends Float32Array | Uint8Array>(trajectory: Trajectory, values: T): T =>
  values.subarray(trajectory.promptLength) as T;

/** The mask of the response. */
export const responseMask = ({ trajectory, mask }: CountedRow): number[] =>
  Array.from(mask).slice(trajectory.promptLength);

/** Tokens of a row that the loss is over. */
export function tokensOf({ trajectory, mask }: CountedRow): number {
  let sum = 0;
  for (let i = trajectory.promptLength; i < mask.length; i++) sum += mask[i]!;
  return sum;
}

export function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** Response values as an array aligned with ids; 0 where the mask is 0. */
export function aligned({ trajectory, mask }: CountedRow, values: ArrayLike<number>, factor = 1): Float32Array {
  const { promptLength, ids } = trajectory;
  const out = new Float32Array(ids.length);
  for (let i = 0; i < values.length; i++) if (mask[promptLength + i]) out[promptLength + i] = values[i]! * factor;
  return out;
}

/** The same groups with each row replaced; f gets the row and its number among all rows. */
export function mapGroups<A, B>(groups: readonly RowGroup<A>[], f: (row: A, i: number) => B): RowGroup<B>[] {
  let i = 0;
  return groups.map(({ group, rows }) => ({ group, rows: rows.map((row) => f(row, i++)) }));
}

/**
 * The rows of each group that have a reward.
 * @param compared the estimator compares a trajectory with its group: one alone is left out
 * @param leftOut questions that are left out
 */
export function countedGroups(
  groups: readonly ScoredGroup[],
  { compared, leftOut }: { compared: boolean; leftOut?: (uid: string) => boolean },
): CountedGroup[] {
  return groups.map((group) => {
    const rows = group.members.flatMap(({ trajectory, reward }): CountedRow[] => {
      if (!reward) return [];
      const rewards = new Float64Array(trajectory.ids.length - trajectory.promptLength);
      if (rewards.length > 0) rewards[rewards.length - 1] = reward.total;
      return [{ trajectory, reward, mask: trajectory.mask, oldLogProbs: trajectory.logProbs, rewards }];
    });
    const alone = compared && rows.length < 2 && group.members.length > 1;
    return { group, rows: alone || leftOut?.(group.group.sample.uid) ? [] : rows };
  });
}
