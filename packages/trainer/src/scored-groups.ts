/** @file A question's trajectories with their rewards, and which of them count. */

import type { RewardFunction } from '@frame-thinker/ccv-reward';
import { createRng, ERROR_ENDS, type Group, messageOf, type Reward, type Trajectory } from '@frame-thinker/core';

export interface ScoredTrajectory {
  trajectory: Trajectory;
  /** The response as text: a view, special tokens and pads kept. */
  text: string;
  /** Absent when the trajectory is left out. */
  reward?: Reward;
  /** Why it is left out of group statistics and loss: an end that is not the policy's doing, or `reward_error`. */
  error?: string;
}

export interface ScoredGroup {
  group: Group;
  members: ScoredTrajectory[];
}

/** Those that count in statistics and loss. */
export function counted(groups: readonly ScoredGroup[]): (ScoredTrajectory & { reward: Reward })[] {
  return groups.flatMap(({ members }) =>
    members.filter((m): m is ScoredTrajectory & { reward: Reward } => m.reward !== undefined),
  );
}

/** Scores the trajectories of a group. A reward that throws leaves its trajectory out, with the error in `onError`. */
export async function scoreGroup(
  group: Group,
  trajectories: readonly Trajectory[],
  {
    score,
    decode,
    onError,
  }: { score: RewardFunction; decode: (ids: Int32Array) => string; onError: (message: string) => void },
): Promise<ScoredGroup> {
  const members: ScoredTrajectory[] = [];
  for (const trajectory of trajectories) {
    const text = decode(trajectory.ids.subarray(trajectory.promptLength));
    if (ERROR_ENDS.includes(trajectory.end)) {
      members.push({ trajectory, text, error: trajectory.end });
      if (trajectory.end === 'env_error')
        onError(
          `environment of ${group.sample.uid} sample ${trajectory.sample} (step ${group.step}): ${trajectory.turns.at(-1)?.error ?? 'failed'}`,
        );
      continue;
    }
    try {
      members.push({ trajectory, text, reward: await score(trajectory, group.sample, text) });
    } catch (error) {
      onError(`reward of ${group.sample.uid} sample ${trajectory.sample} (step ${group.step}): ${messageOf(error)}`);
      members.push({ trajectory, text, error: 'reward_error' });
    }
  }
  return { group, members };
}

/** The control of an experiment: the same rewards, dealt out at random among all trajectories of the step. */
export function permuteRewards(
  groups: readonly ScoredGroup[],
  { seed, step, batch }: { seed: number; step: number; batch: number },
): ScoredGroup[] {
  const rewards = createRng(seed, 'permute', step, batch, 1).shuffled(counted(groups).map(({ reward }) => reward));
  return groups.map((group) => ({
    ...group,
    members: group.members.map((member) => (member.reward ? { ...member, reward: rewards.pop()! } : member)),
  }));
}
