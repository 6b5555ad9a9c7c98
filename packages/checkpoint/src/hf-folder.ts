/** @file Hugging Face model folders: config.json beside model.safetensors, or an index and its shards. */
import { InvariantError } from '@frame-thinker/core';
import type { Dtype, TensorData } from './dtype.ts';

/** An open model folder; headers are read at once, tensors when asked for. */
export interface HfFolder {
  readonly dir: string;
  readonly names: readonly string[];
  has(name: string): boolean;
  shape(name: string): readonly number[];
  dtype(name: string): Dtype;
  /** Values as float32, whatever the file's dtype. @throws InputError naming file and tensor. */
  read(name: string): Float32Array;
  /** As stored. */
  readRaw(name: string): TensorData;
  close(): void;
}

/** A tensor that is read only when it is written: values are float32, stored as `dtype` (default F32). */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype?: Dtype;
  read(): Float32Array | TensorData | Promise<Float32Array | TensorData>;
}

export type WriteDtype = 'keep' | 'fp32' | 'bf16' | 'fp16';

export interface WriteHfFolderOptions {
  /** Target folder; one that exists is replaced at the end, and only if it holds nothing but such files. */
  dir: string;
  tensors: Iterable<TensorSource>;
  /** Applies to floating-point tensors; keep: each its own. */
  dtype: WriteDtype;
  /** Bytes; more than this makes shards and an index. Default 5 GB. */
  maxShardSize?: number;
  /** Folder whose config, tokenizer, processor and generation files are copied. */
  copyFrom: string;
  onTensor?: (name: string, done: number, total: number) => void;
}

export interface WrittenHfFolder {
  files: string[];
  tensors: number;
  bytes: number;
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
}

export function openHfFolder(_dir: string): HfFolder {
  throw new InvariantError('openHfFolder: not written yet');
}

export async function writeHfFolder(_options: WriteHfFolderOptions): Promise<WrittenHfFolder> {
  throw new InvariantError('writeHfFolder: not written yet');
}
