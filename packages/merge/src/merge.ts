/** @file Joins the shards of a training checkpoint into a Hugging Face model folder. */
import { existsSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import {
  MANIFEST,
  openShards,
  readJsonFile,
  readManifest,
  verifyManifest,
  type WriteDtype,
  writeHfFolder,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { toDiskName } from '@frame-thinker/qwen-vl';

export interface MergeOptions {
  backend: 'fsdp';
  /** `<run>/global_step_N/actor`. */
  localDir: string;
  /** The base model: config, tokenizer, processor and generation files are copied from it. */
  hfModelPath: string;
  /** Replaced at the end if it exists, and only if it holds nothing but a model's files. */
  targetDir: string;
  /** auto: what the base's config.json names, else bf16; keep: as in the shards. */
  dtype: 'auto' | WriteDtype;
  /** Bytes of data in a file; more makes several files and an index. Default 5 GB. */
  maxShardSize?: number;
  onProgress?: (progress: { tensor: string; done: number; total: number }) => void;
}

export interface MergeResult {
  targetDir: string;
  worldSize: number;
  tensors: number;
  /** Bytes of tensor data. */
  bytes: number;
  /** What `auto` came to. */
  dtype: WriteDtype;
  files: string[];
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
}

const DTYPE_NAMES: Record<string, WriteDtype> = { float32: 'fp32', bfloat16: 'bf16', float16: 'fp16' };

/** How a tensor is called on disk: Qwen's vision models drop parts of the name in memory, as transformers' save does. */
function diskNaming(hfModelPath: string): (name: string) => string {
  const config = readJsonFile(join(hfModelPath, 'config.json')) as { model_type?: unknown } | null;
  return config?.model_type === 'qwen2_5_vl' ? toDiskName : (name) => name;
}

/** The dtype that a model's config.json names (`dtype`, older `torch_dtype`), bf16 where it names none. */
function dtypeOfBase(hfModelPath: string): WriteDtype {
  const path = join(hfModelPath, 'config.json');
  const config = readJsonFile(path) as Record<string, unknown> | null;
  const text = config?.text_config as Record<string, unknown> | undefined;
  const named = config?.dtype ?? config?.torch_dtype ?? text?.dtype ?? text?.torch_dtype;
  if (named === undefined || named === null) return 'bf16';
  const dtype = DTYPE_NAMES[String(named)];
  if (!dtype)
    throw new InputError(`${path}: dtype ${JSON.stringify(named)} is not known; give --dtype bf16, fp16, fp32 or keep`);
  return dtype;
}

/** The shards' own manifest, where the checkpoint has one: only what merging reads is checked. */
function verifyModelShards(localDir: string): void {
  const checkpoint = dirname(resolve(localDir));
  if (!existsSync(join(checkpoint, MANIFEST))) return;
  const actor = relative(checkpoint, resolve(localDir));
  const isModelShard = (path: string) => path.startsWith(`${actor}/model_world_size_`);
  if (!Object.keys(readManifest(checkpoint).files).some(isModelShard))
    throw new InputError(`${join(checkpoint, MANIFEST)}: names no model shards of ${localDir}`);
  verifyManifest(checkpoint, (path) => isModelShard(path) || path === `${actor}/fsdp_config.json`);
}

/** Refuses a target that would change the checkpoint or the base. */
function checkTarget({ localDir, hfModelPath, targetDir }: MergeOptions): void {
  const inside = (folder: string) => !relative(resolve(folder), resolve(targetDir)).startsWith('..');
  const checkpoint = existsSync(join(dirname(resolve(localDir)), MANIFEST)) ? dirname(resolve(localDir)) : localDir;
  if (inside(checkpoint))
    throw new InputError(`${targetDir}: lies in the checkpoint, which must not change; give another --target-dir`);
  if (inside(hfModelPath))
    throw new InputError(`${targetDir}: lies in the base model's folder; give another --target-dir`);
}

/**
 * Writes an HF folder from the shards of all ranks, one tensor in memory at a time; whole or not at all.
 * @throws InputError naming file and tensor: a missing rank, mixed world sizes, different shapes, a gap or overlap, a
 * truncated or changed file, verl's .pt shards; or a target that must not be replaced.
 */
export async function mergeCheckpoint(options: MergeOptions): Promise<MergeResult> {
  const { localDir, hfModelPath, targetDir, onProgress } = options;
  checkTarget(options);
  const dtype = options.dtype === 'auto' ? dtypeOfBase(hfModelPath) : options.dtype;
  const nameOnDisk = diskNaming(hfModelPath);
  const shards = openShards(localDir, 'model');
  try {
    verifyModelShards(localDir);
    const written = await writeHfFolder({
      dir: targetDir,
      copyFrom: hfModelPath,
      dtype,
      ...(options.maxShardSize === undefined ? {} : { maxShardSize: options.maxShardSize }),
      tensors: shards.names.map((name) => ({
        name: nameOnDisk(name),
        shape: shards.shape(name),
        dtype: shards.dtype(name),
        read: () => shards.readRaw(name),
      })),
      onTensor: (tensor, done, total) => onProgress?.({ tensor, done, total }),
    });
    return { targetDir, worldSize: shards.worldSize, dtype, ...written };
  } finally {
    shards.close();
  }
}
