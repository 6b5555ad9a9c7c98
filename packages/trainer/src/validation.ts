/** @file Validation: accuracy and total reward under the policy as it is, by data source. */
import type { Sample, SamplingOptions } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { type RolledGroup, rolloutGroups } from './rollout-groups.ts';
import type { ScoredGroup } from './scored-groups.ts';
import type { Metrics } from './tracker.ts';
import { questionMetrics } from './validation-metrics.ts';

export interface Validation {
  groups: ScoredGroup[];
  metrics: Metrics;
  /** Over all samples: share right, share valid, mean frames and tool calls of valid ones; how many could not be scored, by cause. */
  summary: {
    accuracy: number;
    valid: number;
    frames: number;
    toolCalls: number;
    samples: number;
    /** Absent in checkpoints of earlier versions. */
    errors?: Record<string, number>;
  };
}

export interface ValidationOptions {
  worker: PolicyWorker;
  samples: readonly Sample[];
  n: number;
  sampling: SamplingOptions;
  batchSize: number;
  score: (rolled: RolledGroup) => Promise<ScoredGroup>;
  onProgress?: (done: number, total: number) => void;
}

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;

/** Accuracy, valid share, frames and tool calls. An episode without a reward (its video failed) counts as wrong and invalid. */
export function summarize(groups: readonly ScoredGroup[]): Validation['summary'] {
  const members = groups.flatMap((group) => group.members);
  const valid = members.filter(({ reward }) => reward !== undefined && reward.format > 0);
  const errors: Record<string, number> = {};
  for (const { error } of members) if (error !== undefined) errors[error] = (errors[error] ?? 0) + 1;
  return {
    accuracy: mean(members.map(({ reward }) => reward?.acc ?? 0)),
    valid: valid.length / Math.max(1, members.length),
    frames: mean(valid.map(({ trajectory }) => trajectory.frames.length)),
    toolCalls: mean(valid.map(({ trajectory }) => trajectory.toolCalls)),
    samples: members.length,
    errors,
  };
}

/** verl's figures of each data source, and mean frames and tool calls beside them. */
function validationMetrics(groups: readonly ScoredGroup[], n: number): Metrics {
  const metrics: Metrics = {};
  for (const source of new Set(groups.map(({ group }) => group.sample.dataSource))) {
    const own = groups.filter(({ group }) => group.sample.dataSource === source);
    const { frames, toolCalls, errors = {} } = summarize(own);
    Object.assign(metrics, questionMetrics(source, own, n));
    metrics[`val-aux/${source}/frames/mean`] = frames;
    metrics[`val-aux/${source}/tool_calls/mean`] = toolCalls;
    for (const [error, count] of Object.entries(errors)) metrics[`val-aux/${source}/error/${error}`] = count;
  }
  return metrics;
}

/** Random numbers are keyed by (step 0, row of the data set), so that a validation does not depend on when it is done. */
export async function validate({
  worker,
  samples,
  n,
  sampling,
  batchSize,
  score,
  onProgress,
}: ValidationOptions): Promise<Validation> {
  const groups: ScoredGroup[] = [];
  for (let at = 0; at < samples.length; at += batchSize) {
    const batch = samples.slice(at, at + batchSize).map((sample, i) => ({ sample, position: at + i, n, step: 0 }));
    for (const rolled of await rolloutGroups(worker, batch, { sampling })) groups.push(await score(rolled));
    onProgress?.(Math.min(at + batchSize, samples.length), samples.length);
  }
  return { groups, metrics: validationMetrics(groups, n), summary: summarize(groups) };
}
