/** @file Metrics of a step: verl's, by its definitions (algorithms/metrics), and ours beside them. */
import {
  type DataMetricsInput,
  dataMetrics as goldenDataMetrics,
  timingMetrics as goldenTimingMetrics,
  throughputMetrics,
  varianceProxyMetrics,
} from '@frame-thinker/algorithms';
import type { Trajectory } from '@frame-thinker/core';
import type { TrainingGroup, TrainingRow } from './group-advantages.ts';
import { counted, type ScoredGroup } from './scored-groups.ts';
import type { Metrics } from './tracker.ts';
import { response, responseMask } from './training-batch.ts';

export interface LengthLimits {
  maxPromptLength: number;
  maxResponseLength: number;
}

function summary(name: string, values: readonly number[]): Metrics {
  if (values.length === 0) return {};
  return {
    [`${name}/mean`]: mean(values),
    [`${name}/max`]: values.reduce((a, b) => Math.max(a, b)),
    [`${name}/min`]: values.reduce((a, b) => Math.min(a, b)),
  };
}

const share = (values: readonly boolean[]): number => values.filter(Boolean).length / Math.max(1, values.length);
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
const sumOf = (mask: Uint8Array): number => mask.reduce((a, b) => a + b, 0);

/** True when all rewards of the group that count are equal: no gradient comes from it. */
function withoutVariance({ members }: ScoredGroup): boolean {
  const totals = members.flatMap(({ reward }) => (reward ? [reward.total] : []));
  return totals.every((total) => total === totals[0]);
}

const responseLength = ({ ids, promptLength }: Trajectory): number => ids.length - promptLength;

/**
 * What verl's data metrics are of: the trajectories that count. One that the estimator leaves out has scores and lengths, and no
 * token with an advantage.
 */
function dataMetricsInput(
  groups: readonly ScoredGroup[],
  training: readonly TrainingGroup[],
  limits: LengthLimits,
): DataMetricsInput & { responseLengths: number[] } {
  const scored = counted(groups);
  const trained = new Map(training.flatMap(({ rows }) => rows.map((row) => [row.trajectory, row] as const)));
  const rows = scored.map(({ trajectory }) => trained.get(trajectory));
  const ofTokens = (values: (row: TrainingRow) => Float32Array): Float32Array[] =>
    rows.map((row) => (row ? response(row.trajectory, values(row)) : new Float32Array(0)));
  return {
    tokenLevelScores: scored.map(({ reward }) => [reward.total]),
    tokenLevelRewards: rows.map((row, i) => row?.rewards ?? [scored[i]!.reward.total]),
    advantages: ofTokens(({ advantages }) => advantages),
    returns: ofTokens(({ returns }) => returns),
    ...(rows.some((row) => row?.values) ? { values: ofTokens(({ values }) => values!) } : {}),
    mask: rows.map((row) => (row ? responseMask(row) : [])),
    promptLengths: scored.map(({ trajectory }) => trajectory.promptLength),
    responseLengths: scored.map(({ trajectory }) => responseLength(trajectory)),
    ...limits,
    numTurns: scored.map(({ trajectory }) => trajectory.turns.filter(({ role }) => role === 'assistant').length),
    toolCallCounts: scored.map(({ trajectory }) => trajectory.toolCalls),
  };
}

/** verl's figures. A step without a token to train on has no advantages, returns and values. */
function verlMetrics(input: ReturnType<typeof dataMetricsInput>): Metrics {
  if (!input.responseLengths.some((length) => length > 0)) return {};
  const metrics = goldenDataMetrics(input);
  if (input.mask.some((row) => Array.from(row).some((m) => m !== 0))) return metrics;
  const ofTokens = /^critic\/(advantages|returns|values|vf_explained_var)/;
  return Object.fromEntries(Object.entries(metrics).filter(([name]) => !ofTokens.test(name)));
}

/** verl's figures of rewards, advantages, lengths and tool calls; ours of reward parts, observations, frames, ends, errors and rules. */
export function dataMetrics(
  groups: readonly ScoredGroup[],
  training: readonly TrainingGroup[],
  limits: LengthLimits,
): Metrics {
  const all = groups.flatMap(({ members }) => members);
  const scored = counted(groups);
  const metrics: Metrics = {
    ...verlMetrics(dataMetricsInput(groups, training, limits)),
    'critic/acc/mean': mean(scored.map(({ reward }) => reward.acc)),
    'critic/format/mean': mean(scored.map(({ reward }) => reward.format)),
    'critic/other/mean': mean(scored.map(({ reward }) => reward.other)),
    ...summary(
      'obs_length',
      scored.map(({ trajectory }) => responseLength(trajectory) - sumOf(trajectory.mask)),
    ),
    ...summary(
      'agent/frames',
      scored.map(({ trajectory }) => trajectory.frames.length),
    ),
    'critic/frac_reward_zero_std': share(groups.map(withoutVariance)),
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

/** Proxies of the gradient's signal and noise, of rows that have the sum of squared probabilities. */
export function varianceMetrics(groups: readonly TrainingGroup[], gradientNorm: number | undefined): Metrics {
  const rows = groups.flatMap((group) => group.rows);
  if (rows.length === 0) return {};
  const weighted = rows.every(({ isWeights }) => isWeights !== undefined);
  return varianceProxyMetrics({
    oldLogProbs: rows.map(({ trajectory, oldLogProbs }) => response(trajectory, oldLogProbs)),
    sumPiSquared: rows.map(({ trajectory, sumPiSquared }) => response(trajectory, sumPiSquared!)),
    advantages: rows.map(({ trajectory, advantages }) => response(trajectory, advantages)),
    mask: rows.map(responseMask),
    ...(weighted
      ? { rolloutIsWeights: rows.map(({ trajectory, isWeights }) => response(trajectory, isWeights!)) }
      : {}),
    ...(gradientNorm === undefined ? {} : { gradientNorm }),
  });
}

/** timing_s/*, timing_per_token_ms/* and perf/*. `seconds` holds those of the whole step. */
export function timingMetrics(
  seconds: Readonly<Record<string, number>> & { step: number },
  groups: readonly ScoredGroup[],
  workers: number,
): Metrics {
  const trajectories = groups.flatMap(({ members }) => members.map(({ trajectory }) => trajectory));
  const total = trajectories.reduce((sum, { ids }) => sum + ids.length, 0);
  const ofResponses = trajectories.reduce((sum, trajectory) => sum + responseLength(trajectory), 0);
  return {
    ...goldenTimingMetrics(seconds, { prompt: total - ofResponses, response: ofResponses }),
    ...throughputMetrics(
      trajectories.map(({ ids }) => ids.length),
      seconds.step,
      workers,
    ),
  };
}
