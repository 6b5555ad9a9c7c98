/** @file Metrics of a step under verl's names (its metric_utils.compute_data_metrics), and ours beside them. */

import type { TrainingGroup } from './group-advantages.ts';
import { counted, type ScoredGroup } from './scored-groups.ts';
import type { Metrics } from './tracker.ts';

function summary(name: string, values: readonly number[]): Metrics {
  if (values.length === 0) return {};
  let [sum, max, min] = [0, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (const value of values) {
    sum += value;
    max = Math.max(max, value);
    min = Math.min(min, value);
  }
  return { [`${name}/mean`]: sum / values.length, [`${name}/max`]: max, [`${name}/min`]: min };
}

const share = (values: readonly boolean[]): number => values.filter(Boolean).length / Math.max(1, values.length);
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
const sumOf = (mask: Uint8Array): number => mask.reduce((a, b) => a + b, 0);

/** True when all rewards of the group that count are equal: no gradient comes from it. */
function withoutVariance({ members }: ScoredGroup): boolean {
  const totals = members.flatMap(({ reward }) => (reward ? [reward.total] : []));
  return totals.every((total) => total === totals[0]);
}

/** Figures of rewards, lengths, tool calls and ends. */
export function dataMetrics(
  groups: readonly ScoredGroup[],
  limits: { maxPromptLength: number; maxResponseLength: number },
): Metrics {
  const all = groups.flatMap(({ members }) => members);
  const scored = counted(groups);
  const responses = all.map(({ trajectory }) => trajectory.ids.length - trajectory.promptLength);
  const prompts = all.map(({ trajectory }) => trajectory.promptLength);
  const metrics: Metrics = {
    ...summary(
      'critic/score',
      scored.map(({ reward }) => reward.total),
    ),
    ...summary(
      'critic/rewards',
      scored.map(({ reward }) => reward.total),
    ),
    'critic/acc/mean': mean(scored.map(({ reward }) => reward.acc)),
    'critic/format/mean': mean(scored.map(({ reward }) => reward.format)),
    'critic/other/mean': mean(scored.map(({ reward }) => reward.other)),
    ...summary('response_length', responses),
    'response_length/clip_ratio': share(responses.map((n) => n >= limits.maxResponseLength)),
    ...summary('prompt_length', prompts),
    'prompt_length/clip_ratio': share(prompts.map((n) => n >= limits.maxPromptLength)),
    ...summary(
      'obs_length',
      all.map(({ trajectory }, i) => responses[i]! - sumOf(trajectory.mask)),
    ),
    ...summary(
      'num_turns',
      all.map(({ trajectory }) => trajectory.turns.filter(({ role }) => role === 'assistant').length),
    ),
    ...summary(
      'tool_call_counts',
      all.map(({ trajectory }) => trajectory.toolCalls),
    ),
    ...summary(
      'agent/frames',
      all.map(({ trajectory }) => trajectory.frames.length),
    ),
    'critic/frac_reward_zero_std': share(groups.map(withoutVariance)),
    'perf/total_num_tokens': all.reduce((sum, { trajectory }) => sum + trajectory.ids.length, 0),
  };
  for (const { trajectory } of all) {
    const key = `agent/end/${trajectory.end}`;
    metrics[key] = (metrics[key] ?? 0) + 1 / all.length;
  }
  for (const { error } of all) if (error) metrics[`agent/error/${error}`] = (metrics[`agent/error/${error}`] ?? 0) + 1;
  for (const { reward } of scored)
    for (const { name } of reward.rules) metrics[`ccv/${name}`] = (metrics[`ccv/${name}`] ?? 0) + 1 / scored.length;
  const extras = new Map<string, number[]>();
  for (const { reward } of scored)
    for (const [name, value] of Object.entries(reward.extras)) extras.set(name, [...(extras.get(name) ?? []), value]);
  for (const [name, values] of extras) metrics[`reward/${name}/mean`] = mean(values);
  return metrics;
}

/** Sums of the token-level rewards after the KL penalty, under the name that dataMetrics gives those before it. */
export function rewardMetrics(groups: readonly TrainingGroup[]): Metrics {
  const rows = groups.flatMap((group) => group.rows);
  return summary(
    'critic/rewards',
    rows.map(({ rewards }) => rewards.reduce((a, b) => a + b, 0)),
  );
}

/** Token-weighted figures of advantages and returns. */
export function advantageMetrics(groups: readonly TrainingGroup[]): Metrics {
  const advantages: number[] = [];
  const returns: number[] = [];
  for (const { rows } of groups)
    for (const row of rows)
      row.trajectory.mask.forEach((m, i) => {
        if (!m) return;
        advantages.push(row.advantages[i]!);
        returns.push(row.returns[i]!);
      });
  return { ...summary('critic/advantages', advantages), ...summary('critic/returns', returns) };
}

/** timing_s/*, timing_per_token_ms/* and perf/*. */
export function timingMetrics(
  seconds: Readonly<Record<string, number>>,
  tokens: { response: number; all: number },
  workers: number,
): Metrics {
  const metrics: Metrics = {};
  for (const [phase, s] of Object.entries(seconds)) metrics[`timing_s/${phase}`] = s;
  if (seconds.gen !== undefined && tokens.response > 0)
    metrics['timing_per_token_ms/gen'] = (1000 * seconds.gen) / tokens.response;
  for (const phase of ['ref', 'values', 'adv', 'update_critic', 'update_actor'])
    if (seconds[phase] !== undefined && tokens.all > 0)
      metrics[`timing_per_token_ms/${phase}`] = (1000 * seconds[phase]) / tokens.all;
  if (seconds.step) {
    metrics['perf/time_per_step'] = seconds.step;
    metrics['perf/throughput'] = tokens.all / (seconds.step * workers);
  }
  return metrics;
}
