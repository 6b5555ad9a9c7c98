/** @file How rows are cut into micro-batches: by question, by number of rows, or by tokens; and how those are dealt to workers. */
import {
  balancedPartitions,
  microBatches as byTokens,
  groupBalancedPartitions,
  seqlenUnbalance,
  workloadOf,
} from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError, type Trajectory } from '@frame-thinker/core';
import type { Metrics } from './tracker.ts';
import type { RowGroup } from './training-batch.ts';

/** Rows that a micro-batch can be cut from. */
interface Row {
  trajectory: Trajectory;
}

export interface MicroBatchOptions {
  /** Micro-batches of about `maxTokens` tokens and equal work, over `size`. */
  dynamic: boolean;
  maxTokens: number;
  /** Rows in a micro-batch; null: one question. */
  size: number | null;
  /** Key of `maxTokens`, for errors. */
  maxTokensKey: string;
}

type RefConfig = TrainConfig['actor_rollout_ref']['ref'];

type UpdateConfig = Pick<
  TrainConfig['actor_rollout_ref']['actor'],
  'use_dynamic_bsz' | 'ppo_max_token_len_per_gpu' | 'ppo_micro_batch_size_per_gpu'
>;

/** Micro-batches of the update of the policy or the critic. `block`: of the configuration, for errors. */
export const updateBatches = (config: UpdateConfig, block: string): MicroBatchOptions => ({
  dynamic: config.use_dynamic_bsz,
  maxTokens: config.ppo_max_token_len_per_gpu,
  size: config.ppo_micro_batch_size_per_gpu,
  maxTokensKey: `${block}.ppo_max_token_len_per_gpu`,
});

/** Micro-batches of a forward for log-probs alone, of the policy (`rollout`) or the frozen reference (`ref`). */
export const scoringBatches = (
  kind: 'rollout' | 'ref',
  config: Pick<
    RefConfig,
    'log_prob_use_dynamic_bsz' | 'log_prob_max_token_len_per_gpu' | 'log_prob_micro_batch_size_per_gpu'
  >,
): MicroBatchOptions => ({
  dynamic: config.log_prob_use_dynamic_bsz,
  maxTokens: config.log_prob_max_token_len_per_gpu,
  size: config.log_prob_micro_batch_size_per_gpu,
  maxTokensKey: `actor_rollout_ref.${kind}.log_prob_max_token_len_per_gpu`,
});

const tokensOf = ({ trajectory }: Row): number => trajectory.ids.length;

/**
 * The rows of some questions in micro-batches.
 * @throws InputError when a trajectory has more tokens than a micro-batch may hold.
 */
export function microBatches<R extends Row>(
  groups: readonly RowGroup<R>[],
  { dynamic, maxTokens, size, maxTokensKey }: MicroBatchOptions,
): R[][] {
  const byQuestion = groups.map(({ rows }) => rows).filter((rows) => rows.length > 0);
  const rows = byQuestion.flat();
  if (rows.length === 0) return [];
  if (dynamic) {
    const tokens = rows.map(tokensOf);
    const longest = Math.max(...tokens);
    if (longest > maxTokens)
      throw new InputError(
        `a trajectory has ${longest} tokens, more than a micro-batch may hold: raise ${maxTokensKey} (${maxTokens})`,
      );
    return byTokens(tokens, { maxTokenLen: maxTokens }).map((part) => part.map((i) => rows[i]!));
  }
  if (size === null) return byQuestion;
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => rows.slice(i * size, (i + 1) * size));
}

/** Questions in parts of about equal work, one a worker: as many in each where that is possible. Undefined: too few questions. */
function shares<R extends Row>(groups: readonly RowGroup<R>[], workers: number): RowGroup<R>[][] | undefined {
  const used = groups.filter(({ rows }) => rows.length > 0);
  if (used.length < workers) return undefined;
  if (used.length % workers !== 0) {
    const work = used.map(({ rows }) => rows.reduce((sum, row) => sum + workloadOf(tokensOf(row)), 0));
    return balancedPartitions(work, workers, false).map((part) => part.map((g) => used[g]!));
  }
  const rows = used.flatMap((group, g) => group.rows.map((row) => ({ tokens: tokensOf(row), g })));
  const parts = groupBalancedPartitions(
    rows.map(({ tokens }) => tokens),
    rows.map(({ g }) => `${g}`),
    workers,
  );
  return parts.map((part) => [...new Set(part.map((i) => rows[i]!.g))].map((g) => used[g]!));
}

/**
 * microBatches, balanced over workers (verl's balance_batch): each worker's part is cut on its own, and the micro-batches stand in
 * turn, one of each part, so that workers that take the next one when they are free end up with about equal work.
 */
export function balancedMicroBatches<R extends Row>(
  groups: readonly RowGroup<R>[],
  options: MicroBatchOptions & { workers: number },
): R[][] {
  const parts = shares(groups, options.workers);
  if (!parts) return microBatches(groups, options);
  const cut = parts.map((part) => microBatches(part, options));
  const most = Math.max(...cut.map((micros) => micros.length));
  return Array.from({ length: most }, (_, i) => cut.flatMap((micros) => micros.slice(i, i + 1))).flat();
}

/** global_seqlen/*: tokens of the workers' parts as the rows came, and balanced. Nothing with fewer questions than workers. */
export function balanceMetrics(groups: readonly RowGroup<Row>[], workers: number): Metrics {
  const parts = shares(groups, workers);
  if (!parts) return {};
  const rows = groups.flatMap((group) => group.rows);
  const numberOf = new Map(rows.map((row, i) => [row, i]));
  return seqlenUnbalance(
    rows.map(tokensOf),
    parts.map((part) => part.flatMap((group) => group.rows.map((row) => numberOf.get(row)!))),
    'global_seqlen',
  );
}
