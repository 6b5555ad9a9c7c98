/** @file Advantages of the trajectories of a step, by the configured estimator. */
import { ADVANTAGE_ESTIMATORS } from '@frame-thinker/algorithms';
import { InvariantError, type Trajectory } from '@frame-thinker/core';
import type { ScoredGroup } from './scored-groups.ts';

/** A trajectory that takes part in the update. Arrays are aligned with ids. */
export interface TrainingRow {
  trajectory: Trajectory;
  /** Advantage of each token; 0 where the mask is 0. */
  advantages: Float32Array;
  returns: Float32Array;
  scored: { group: ScoredGroup; member: number };
}

export interface TrainingGroup {
  group: ScoredGroup;
  /** Empty when fewer than two members count: one alone has no group to be compared with. */
  rows: TrainingRow[];
}

/** Token-level rewards hold the total on the last token of the response (verl). */
export function estimateAdvantages(
  groups: readonly ScoredGroup[],
  { estimator, normByStd, gamma, lam }: { estimator: string; normByStd: boolean; gamma: number; lam: number },
): TrainingGroup[] {
  const estimate = ADVANTAGE_ESTIMATORS.get(estimator);
  if (!estimate) throw new InvariantError(`advantage estimator ${estimator} is in the schema but not in the registry`);
  const members = groups.flatMap((group) => {
    const left = group.members.flatMap((m, member) =>
      m.reward ? [{ group, member, trajectory: m.trajectory, total: m.reward.total }] : [],
    );
    return left.length < 2 && group.members.length > 1 ? [] : left;
  });
  const responses = members.map(({ trajectory, total }) => {
    const mask = trajectory.mask.subarray(trajectory.promptLength);
    const rewards = new Float64Array(mask.length);
    if (rewards.length > 0) rewards[rewards.length - 1] = total;
    return { mask, rewards };
  });
  const { advantages, returns } = estimate(
    {
      tokenLevelRewards: responses.map(({ rewards }) => rewards),
      mask: responses.map(({ mask }) => mask),
      index: members.map(({ group }) => group.group.sample.uid),
    },
    { normAdvByStdInGrpo: normByStd, gamma, lam },
  );
  const whole = (row: Float64Array, { promptLength, ids, mask }: Trajectory): Float32Array => {
    const out = new Float32Array(ids.length);
    row.forEach((value, i) => {
      if (mask[promptLength + i]) out[promptLength + i] = value;
    });
    return out;
  };
  const rows = members.map(({ group, member, trajectory }, i) => ({
    trajectory,
    advantages: whole(advantages[i]!, trajectory),
    returns: whole(returns[i]!, trajectory),
    scored: { group, member },
  }));
  return groups.map((group) => ({ group, rows: rows.filter((row) => row.scored.group === group) }));
}
