/** @file DAPO's soft penalty of responses near the length limit (reward_model.overlong_buffer). */
import type { TrainConfig } from '@frame-thinker/config';
import type { ScoredGroup } from './scored-groups.ts';

/** min(−(length − (limit − len)) / len · factor, 0): 0 up to limit − len tokens, −factor at the limit. */
export function overlongPenalty(length: number, options: { limit: number; len: number; factor: number }): number {
  const { limit, len, factor } = options;
  return Math.min((-(length - (limit - len)) / len) * factor, 0) || 0;
}

/** The rewards with the penalty in their total, where the configuration asks for it. Lengths count observations. */
export function withOverlongPenalty(
  group: ScoredGroup,
  { reward_model: manager, data }: Pick<TrainConfig, 'reward_model' | 'data'>,
): ScoredGroup {
  const { enable, len, penalty_factor: factor, log } = manager.overlong_buffer;
  if (manager.reward_manager !== 'dapo' || !enable) return group;
  return {
    ...group,
    members: group.members.map((member) => {
      const { reward, trajectory } = member;
      if (!reward) return member;
      const length = trajectory.ids.length - trajectory.promptLength;
      const penalty = overlongPenalty(length, { limit: data.max_response_length, len, factor });
      const extras = log
        ? { ...reward.extras, overlong_reward: penalty, overlong: penalty < 0 ? 1 : 0 }
        : reward.extras;
      return { ...member, reward: { ...reward, total: reward.total + penalty, extras } };
    }),
  };
}
