/** @file Writes Hugging Face model folders: atomic, one tensor or one piece of a tensor in memory at a time. */
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { InputError } from '@frame-thinker/core';
import type { Dtype } from './dtype.ts';
import { removeStale, writeFolderAtomic } from './folder.ts';
import { copyModelFiles, INDEX, isModelFile, isWeightFile, readJsonFile } from './hf-folder.ts';
import { CONFIG_NAMES, type PlanOptions, planHfFiles } from './hf-folder-plan.ts';
import { type WriteWeightsOptions, type WrittenRange, writeWeights } from './hf-weights-writer.ts';

/** Folder of a LoRA adapter inside a model folder. */
export const ADAPTER_FOLDER = 'lora_adapter';

export interface WriteHfFolderOptions extends PlanOptions, WriteWeightsOptions {
  /** Target folder. One that exists is replaced at the end, and only if it holds nothing but a model's files. */
  dir: string;
  /** Folder whose config, tokenizer, processor and generation files are copied. */
  copyFrom: string;
  /** Whether config.json says that lm_head is the embedding; absent: as in `copyFrom`. */
  tied?: boolean;
  /** Runs when all is written, before the folder gets its name: checks and further files. What it throws undoes all. */
  complete?: (temporary: string, ranges: ReadonlyMap<string, readonly WrittenRange[]>) => void | Promise<void>;
}

export interface WrittenHfFolder {
  files: string[];
  tensors: number;
  /** Bytes of tensor data. */
  bytes: number;
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
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
