/** @file How a mini-batch is cut into micro-batches: by question, by number of rows, or by tokens. */
import { microBatches as byTokens } from '@frame-thinker/algorithms';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError } from '@frame-thinker/core';
import type { TrainingGroup, TrainingRow } from './group-advantages.ts';

type BatchConfig = Pick<
  TrainConfig['actor_rollout_ref']['actor'],
  'use_dynamic_bsz' | 'ppo_max_token_len_per_gpu' | 'ppo_micro_batch_size_per_gpu'
> & {
  /** The block of the configuration, for errors. */
  key: string;
};

/**
 * The rows of a mini-batch in micro-batches: of about ppo_max_token_len_per_gpu tokens with use_dynamic_bsz, else of
 * ppo_micro_batch_size_per_gpu rows, or of one question.
 * @throws InputError when a trajectory has more tokens than a micro-batch may hold.
 */
export function microBatches(mini: readonly TrainingGroup[], config: BatchConfig): TrainingRow[][] {
  const groups = mini.map(({ rows }) => rows).filter((rows) => rows.length > 0);
  const rows = groups.flat();
  if (rows.length === 0) return [];
  if (config.use_dynamic_bsz) {
    const tokens = rows.map(({ trajectory }) => trajectory.ids.length);
    const [longest, most] = [Math.max(...tokens), config.ppo_max_token_len_per_gpu];
    if (longest > most)
      throw new InputError(
        `a trajectory has ${longest} tokens, more than a micro-batch may hold: raise ${config.key}.ppo_max_token_len_per_gpu (${most})`,
      );
    return byTokens(tokens, { maxTokenLen: most }).map((part) => part.map((i) => rows[i]!));
  }
  const size = config.ppo_micro_batch_size_per_gpu;
  if (size === null) return groups;
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => rows.slice(i * size, (i + 1) * size));
}
