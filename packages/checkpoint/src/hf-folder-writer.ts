/** @file Writes Hugging Face model folders: atomic, one tensor or one piece of a tensor in memory at a time. */
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { InputError } from '@frame-thinker/core';
import type { Dtype, FloatDtype } from './dtype.ts';
import { removeStale, writeFolderAtomic } from './folder.ts';
import { copyModelFiles, INDEX, isModelFile, isWeightFile, readJsonFile, SINGLE } from './hf-folder.ts';
import { type WrittenRange, writeWeights } from './hf-weights-writer.ts';
import { byteLengthOf } from './safetensors.ts';
import type { RangedSource, TensorSource } from './tensor-source.ts';

/** Folder of a LoRA adapter inside a model folder. */
export const ADAPTER_FOLDER = 'lora_adapter';

export type WriteDtype = 'keep' | 'fp32' | 'bf16' | 'fp16';

const STORED: Record<Exclude<WriteDtype, 'keep'>, FloatDtype> = { fp32: 'F32', bf16: 'BF16', fp16: 'F16' };
const CONFIG_NAMES: Partial<Record<Dtype, string>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };

export interface WriteHfFolderOptions {
  /** Target folder. One that exists is replaced at the end, and only if it holds nothing but a model's files. */
  dir: string;
  tensors: Iterable<TensorSource | RangedSource>;
  /** For floating-point tensors; keep: each its own. */
  dtype: WriteDtype;
  /** Bytes of data in a file; more makes shards and an index. Default 5 GB. */
  maxShardSize?: number;
  /** Folder whose config, tokenizer, processor and generation files are copied. */
  copyFrom: string;
  /** Whether config.json says that lm_head is the embedding; absent: as in `copyFrom`. */
  tied?: boolean;
  onTensor?: (name: string, done: number, total: number) => void;
  /** After each piece: bytes of tensor data written so far, and in all. */
  onBytes?: (bytes: number, total: number) => void;
  /** Runs when all is written, before the folder gets its name: checks and further files. What it throws undoes all. */
  complete?: (temporary: string, ranges: ReadonlyMap<string, readonly WrittenRange[]>) => void | Promise<void>;
  /** Whether `complete` gets the CRC-32 of what was written, by tensor. */
  checksums?: boolean;
  /** Ends it: what was written is removed, and the signal's reason thrown. */
  signal?: AbortSignal;
}

export interface WrittenHfFolder {
  files: string[];
  tensors: number;
  /** Bytes of tensor data. */
  bytes: number;
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
}

export interface PlannedFile {
  name: string;
  tensors: PlannedTensor[];
}

export interface PlannedTensor {
  source: TensorSource | RangedSource;
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  bytes: number;
}

/** The files that would be written, and what each holds. */
export function planHfFiles(options: Pick<WriteHfFolderOptions, 'tensors' | 'dtype' | 'maxShardSize'>): PlannedFile[] {
  const { dtype: target, maxShardSize = 5e9 } = options;
  const groups: PlannedTensor[][] = [[]];
  let size = 0;
  for (const source of options.tensors) {
    const { dtype: own = 'F32', shape } = 'tensor' in source ? source.tensor : source;
    const dtype = target !== 'keep' && (CONFIG_NAMES[own] || own === 'F64') ? STORED[target] : own;
    const bytes = byteLengthOf(dtype, shape);
    if (size > 0 && size + bytes > maxShardSize) {
      groups.push([]);
      size = 0;
    }
    size += bytes;
    groups.at(-1)!.push({ source, name: source.name, dtype, shape, bytes });
  }
  if (groups.length === 1) return [{ name: SINGLE, tensors: groups[0]! }];
  const digits = (n: number) => String(n).padStart(5, '0');
  return groups.map((tensors, i) => ({
    name: `model-${digits(i + 1)}-of-${digits(groups.length)}.safetensors`,
    tensors,
  }));
}

/** Refuses to replace a folder that holds anything a model folder would not. @throws InputError naming it. */
export function refuseForeignTarget(dir: string): void {
  if (!existsSync(dir)) return;
  if (!statSync(dir).isDirectory()) throw new InputError(`${dir}: is a file; give a folder for the model`);
  const foreign = readdirSync(dir).find((name) => !isModelFile(name) && !isWeightFile(name) && name !== ADAPTER_FOLDER);
  if (foreign !== undefined)
    throw new InputError(`${dir}: holds ${foreign}, which is no model file and would be lost; give another folder`);
}

/** config.json names the dtype that the weights were written in, and says whether lm_head is the embedding. */
function rewriteConfig(path: string, dtypes: Set<Dtype>, tied: boolean | undefined): void {
  const name = dtypes.size === 1 ? CONFIG_NAMES[[...dtypes][0]!] : undefined;
  if (!name && tied === undefined) return;
  const config = readJsonFile(path) as Record<string, unknown>;
  for (const part of [config, config.text_config, config.vision_config] as (Record<string, unknown> | null)[]) {
    if (typeof part !== 'object' || part === null) continue;
    if (name) for (const key of ['dtype', 'torch_dtype']) if (typeof part[key] === 'string') part[key] = name;
    if (tied !== undefined && (part === config || 'tie_word_embeddings' in part)) part.tie_word_embeddings = tied;
  }
  writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`);
}

/**
 * Writes a model folder atomically, one tensor in memory at a time.
 * @throws InputError when the target holds other files, the disk is full, or a source cannot be read.
 */
export async function writeHfFolder(options: WriteHfFolderOptions): Promise<WrittenHfFolder> {
  const { dir, copyFrom } = options;
  refuseForeignTarget(dir);
  removeStale(dirname(dir), (name) => name === basename(dir));
  const files = planHfFiles(options);
  return await writeFolderAtomic(dir, async (temporary) => {
    const copied = copyModelFiles(copyFrom, temporary);
    const { ranges, ...written } = await writeWeights(temporary, files, options);
    if (files.length > 1) {
      const map = files.flatMap((file) => file.tensors.map(({ name }) => [name, file.name] as const));
      const index = { metadata: { total_size: written.bytes }, weight_map: Object.fromEntries(map.sort()) };
      writeFileSync(join(temporary, INDEX), `${JSON.stringify(index, null, 2)}\n`);
    }
    const floats = files.flatMap((file) => file.tensors.map(({ dtype }) => dtype)).filter((d) => CONFIG_NAMES[d]);
    rewriteConfig(join(temporary, 'config.json'), new Set(floats), options.tied);
    await options.complete?.(temporary, ranges);
    await turn();
    options.signal?.throwIfAborted();
    const names = [...copied, ...files.map((f) => f.name), ...(files.length > 1 ? [INDEX] : [])];
    return { ...written, files: names };
  });
}
