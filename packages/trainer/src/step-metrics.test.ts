import type { Reward, Trajectory } from '@frame-thinker/core';
import { expect, it } from 'vitest';
import { estimateAdvantages } from './group-advantages.ts';
import type { ScoredGroup, ScoredTrajectory } from './scored-groups.ts';
import { dataMetrics, timingMetrics } from './step-metrics.ts';
import { countedGroups, mapGroups } from './training-batch.ts';

/** Prompt of 2 tokens, then the mask's. */
function member(uid: string, total: number | undefined, mask: number[], end: Trajectory['end'] = 'answer') {
  const length = 2 + mask.length;
  const trajectory: Trajectory = {
    ...{ uid, sample: 0, step: 1, promptLength: 2, frames: [], end, toolCalls: mask.length - 1 },
    turns: [{ role: 'assistant', start: 2, end: length, text: '', ms: 1 }],
    ids: new Int32Array(length),
    mask: Uint8Array.from([0, 0, ...mask]),
    logProbs: new Float32Array(length),
  };
  if (total === undefined) return { trajectory, text: '', error: end };
  const reward: Reward = {
    ...{ total, acc: total > 0 ? 1 : 0, format: 1, other: 0, extras: { mine: total } },
    rules: total > 0 ? [] : [{ name: 'repeated', turn: 0, message: '' }],
  };
  return { trajectory, text: '', reward };
}
const group = (uid: string, members: ScoredTrajectory[]): ScoredGroup => ({
  group: {
    sample: { uid, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} },
    ...{ position: 0, n: members.length, step: 1 },
  },
  members,
});
const groups = [
  group('a', [member('a', 1, [1, 0, 1]), member('a', 0, [1])]),
  // One of two is left, so the estimator has nothing to compare it with.
  group('b', [member('b', 3, [1, 1]), member('b', undefined, [1, 1, 1, 1], 'decode_error')]),
];
const limits = { maxPromptLength: 4, maxResponseLength: 3 };
const estimate = (counted: ReturnType<typeof countedGroups>) =>
  estimateAdvantages(counted, { estimator: 'grpo', options: {} });

it("are verl's over the trajectories that count; the advantages over the tokens that are trained", () => {
  const penalised = mapGroups(countedGroups(groups, { compared: true }), (row) => ({
    ...row,
    rewards: row.rewards.map((x) => x - 0.5),
  }));
  const metrics = dataMetrics(groups, estimate(penalised), limits);
  expect(metrics).toMatchObject({
    'critic/score/mean': 4 / 3,
    'critic/score/max': 3,
    // Three tokens and one in group a; the trajectory that is left alone has no penalty.
    'critic/rewards/min': -0.5,
    'critic/rewards/max': 3,
    'response_length/mean': 2,
    'response_length/max': 3,
    'response_length/clip_ratio': 1 / 3,
    'response/aborted_ratio': 0,
    'prompt_length/clip_ratio': 0,
    'num_turns/mean': 1,
    'tool_call_counts/max': 2,
    'obs_length/max': 1,
    'critic/acc/mean': 2 / 3,
    'critic/frac_reward_zero_std': 0.5,
    'agent/end/answer': 0.75,
    'agent/end/decode_error': 0.25,
    'agent/error/decode_error': 1,
    'ccv/repeated': 1 / 3,
    'reward/mine/mean': 4 / 3,
  });
  // The better one has two sampled tokens, the other one.
  expect(metrics['critic/advantages/max']).toBeCloseTo(-metrics['critic/advantages/min']!, 5);
  expect(metrics['critic/advantages/mean']).toBeCloseTo(
    (2 * metrics['critic/advantages/max']! + metrics['critic/advantages/min']!) / 3,
    5,
  );
});

it('have no advantages where nothing is trained, and no figures of rewards where nothing counts', () => {
  const alone = [groups[1]!];
  const metrics = dataMetrics(alone, estimate(countedGroups(alone, { compared: true })), limits);
  expect(metrics['critic/score/mean']).toBe(3);
  expect(Object.keys(metrics).filter((name) => name.startsWith('critic/advantages'))).toEqual([]);
  expect(Object.values(metrics).every(Number.isFinite)).toBe(true);
  const none = [group('c', [member('c', undefined, [1], 'env_error')])];
  expect(dataMetrics(none, estimate(countedGroups(none, { compared: true })), limits)).toMatchObject({
    'agent/error/env_error': 1,
  });
});

it('times are by response tokens for gen, by all tokens for the update', () => {
  const seconds = { gen: 2, update_actor: 3, wait_for_videos: 1, step: 9 };
  const metrics = timingMetrics(seconds, groups, 2);
  expect(metrics).toEqual({
    'timing_s/gen': 2,
    'timing_s/update_actor': 3,
    'timing_s/wait_for_videos': 1,
    'timing_s/step': 9,
    'timing_per_token_ms/gen': 200,
    'timing_per_token_ms/update_actor': 3000 / 18,
    'perf/total_num_tokens': 18,
    'perf/time_per_step': 9,
    'perf/throughput': 1,
  });
});
