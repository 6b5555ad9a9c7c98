/** @file What a merge reads from: the whole tensors of a checkpoint, each read by ranges. */
import type { RangedTensor } from '@frame-thinker/checkpoint';

export interface MergeSource {
  /** Ranks whose files were read. */
  readonly worldSize: number;
  /** By the names that the training process had, or those on disk. */
  readonly tensors: ReadonlyMap<string, RangedTensor>;
  /** What a reader should know: entries left out, tensors of several copies. */
  readonly notes: readonly string[];
  /** Checks the checksums of what was read. @throws InputError naming file and entry. */
  verify(): void;
  close(): void;
}
