/**
 * @file A reward of one's own: right answers, cheaper by every look. Used by
 *
 *     custom_reward_function.path=examples/agent/rewards/few-frames.ts custom_reward_function.reward_kwargs={look_cost: 0.1}
 *
 * or for one data source by reward.by_data_source={mine: {path: examples/agent/rewards/few-frames.ts}}.
 */
import type { Trajectory } from '@frame-thinker/core';

interface Input {
  data_source: string;
  /** The decoded response: all turns and observations. */
  solution_str: string;
  ground_truth: string;
  extra_info: Record<string, unknown>;
  /** What really happened, turn by turn. */
  trajectory: Trajectory;
}

/** `score` is trained on; acc and format have their metrics, everything else becomes reward/<name>/mean. */
export function compute_score({ ground_truth, trajectory }: Input, { look_cost = 0.05 }: { look_cost?: number } = {}) {
  const actions = trajectory.turns.flatMap(({ action }) => action ?? []);
  const looks = actions.filter(({ kind }) => kind === 'frames').length;
  const last = actions.at(-1);
  const answered = last?.kind === 'answer';
  const acc = answered && last.answer.trim().startsWith(ground_truth) ? 1 : 0;
  return { score: acc === 1 ? Math.max(0, 1 - look_cost * looks) : 0, acc, format: answered ? 1 : 0, looks };
}
