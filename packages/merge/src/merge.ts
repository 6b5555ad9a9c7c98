/** @file Joins the shards of a training checkpoint into a Hugging Face model folder. */
import { InvariantError } from '@frame-thinker/core';

export interface MergeOptions {
  backend: 'fsdp';
  /** `<run>/global_step_N/actor`. */
  localDir: string;
  /** The base model: config, tokenizer, processor and generation files are copied from it. */
  hfModelPath: string;
  targetDir: string;
  /** auto: what the base's config.json names, else bf16; keep: as in the shards. */
  dtype: 'auto' | 'keep' | 'bf16' | 'fp16' | 'fp32';
  /** Bytes; more makes several files and an index. */
  maxShardSize?: number;
  onProgress?: (progress: { tensor: string; done: number; total: number }) => void;
}

export interface MergeResult {
  targetDir: string;
  worldSize: number;
  tensors: number;
  bytes: number;
  dtype: 'keep' | 'bf16' | 'fp16' | 'fp32';
  files: string[];
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
}

export async function mergeCheckpoint(_options: MergeOptions): Promise<MergeResult> {
  throw new InvariantError('mergeCheckpoint: not written yet');
}

/** The newest checkpoint of the newest run under `runsRoot`; null when there is none. */
export function newestCheckpoint(_runsRoot: string): { runDir: string; step: number; dir: string } | null {
  throw new InvariantError('newestCheckpoint: not written yet');
}
