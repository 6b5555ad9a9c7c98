/** @file Joins the shards of a training checkpoint into a Hugging Face model folder. */
import { existsSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import {
  ADAPTER_FOLDER,
  INDEX,
  MANIFEST,
  openHfFolder,
  planHfFiles,
  type RangedSource,
  type RangedTensor,
  refuseForeignTarget,
  SINGLE,
  sameTensor,
  type WriteDtype,
  writeFolderAtomic,
  writeHfFolder,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { toDiskName } from '@frame-thinker/qwen-vl';
import { type BaseConfig, dtypeOfBase, readBaseConfig } from './base-config.ts';
import { verifyWritten } from './compare.ts';
import { checkDecoder } from './decoder-check.ts';
import { hasTorchShards, openFsdpTorch } from './fsdp-source.ts';
import {
  foldLora,
  type LoraMeta,
  loraMetaOf,
  loraRank,
  loraScale,
  type SplitLora,
  splitLora,
  writeAdapter,
} from './lora.ts';
import { openMegatron } from './megatron-source.ts';
import { openOwnShards } from './own-source.ts';
import type { MergeSource } from './source.ts';
import { refuseNames } from './written-names.ts';

export interface MergeOptions {
  /** fsdp: verl's .pt shards, or this project's own; megatron: mp_rank_TT[_PPP]/model.pt. */
  backend: 'fsdp' | 'megatron';
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
  /** merge: LoRA is folded into the weights (the default); adapter: the base's weights and lora_adapter/ beside them. */
  lora?: 'merge' | 'adapter';
  /** Instead of what lora_train_meta.json says. */
  loraAlpha?: number;
  /** lm_head is the embedding, whatever the config says. */
  tieWordEmbedding?: boolean;
  /** Megatron: the output layer is a value head, written as `score`. */
  isValueModel?: boolean;
  /** Reads everything back and compares it before the folder gets its name. */
  verify?: boolean;
  /** Writes nothing; the result says what would be written. */
  dryRun?: boolean;
  /** Ends the merge: nothing of it stays, and the signal's reason is thrown. Without effect once the folder has its name. */
  signal?: AbortSignal;
  onProgress?: (progress: { tensor: string; done: number; total: number }) => void;
  /** Bytes of tensor data written so far, and in all. */
  onBytes?: (bytes: number, total: number) => void;
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
  /** What was left out or decided on the way, a line each. */
  notes: string[];
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

function openSource(options: MergeOptions, config: BaseConfig): MergeSource {
  const { backend, localDir, isValueModel = false } = options;
  if (backend === 'megatron')
    return openMegatron(localDir, { config, isValueModel, tied: options.tieWordEmbedding ?? config.tied });
  return hasTorchShards(localDir) ? openFsdpTorch(localDir) : openOwnShards(localDir);
}

/** Drops lm_head where it is the embedding; complains where it is not there and should be. */
function tieHead(tensors: Map<string, RangedTensor>, config: BaseConfig, options: MergeOptions, notes: string[]): void {
  const embedding = tensors.get('model.embed_tokens.weight') ?? tensors.get('model.language_model.embed_tokens.weight');
  const head = tensors.get('lm_head.weight');
  const tied = options.tieWordEmbedding ?? config.tied;
  if (tied && head && embedding) {
    const differs = () =>
      new InputError(
        `${config.path}: says that lm_head is tied to the embedding, but the shards hold another lm_head; set tie_word_embeddings to false`,
      );
    const same = sameTensor(embedding, head, differs);
    for (const [name, tensor] of tensors) if (tensor === embedding) tensors.set(name, same);
    tensors.delete('lm_head.weight');
    notes.push('lm_head.weight is the embedding and is not written');
  }
  const isLanguageModel = /For(CausalLM|ConditionalGeneration)$/.test(config.architecture ?? '');
  if (!tied && !head && embedding && isLanguageModel && !tensors.has('score.weight'))
    throw new InputError(
      options.tieWordEmbedding === false
        ? `${options.localDir}: holds no lm_head.weight, and --no-tie-word-embedding says that it is not the embedding`
        : `${options.localDir}: holds no lm_head.weight, and ${config.path} does not tie it to the embedding; give --tie-word-embedding if it is tied`,
    );
}

interface Plan {
  sources: RangedSource[];
  adapter: (Pick<SplitLora, 'pairs' | 'saved'> & { meta: LoraMeta; rank: number }) | null;
  notes: string[];
  close(): void;
}

/** Names on disk, LoRA folded in or set apart, tied tensors dropped. */
function planTensors(options: MergeOptions, config: BaseConfig, source: MergeSource): Plan {
  const { localDir, hfModelPath, lora = 'merge' } = options;
  const notes = [...source.notes];
  const { base, pairs, saved } = splitLora(source.tensors, localDir);
  const rank = pairs.size > 0 ? loraRank(pairs, localDir) : 0;
  const meta = pairs.size > 0 ? loraMetaOf(localDir, options.loraAlpha, rank) : null;
  if (!meta && saved.size > 0)
    throw new InputError(
      `${localDir}: tensor ${[...saved.keys()][0]}: of modules_to_save, but there is no LoRA beside it`,
    );
  let tensors = base;
  let close = () => {};
  if (meta && lora === 'merge') {
    if (tensors.size === 0) {
      if (!existsSync(join(hfModelPath, SINGLE)) && !existsSync(join(hfModelPath, INDEX)))
        throw new InputError(
          `${localDir}: holds only LoRA, and ${hfModelPath} has no weights to add it to; give a base with weights, or --lora adapter`,
        );
      const folder = openHfFolder(hfModelPath);
      close = folder.close;
      tensors = new Map(folder.names.map((name) => [name, folder.ranged(name)]));
      notes.push(`LoRA is added to the weights of ${hfModelPath}`);
    }
    const fromDisk = config.modelType === 'qwen2_5_vl' ? toDiskName : (name: string) => name;
    const inBase = (name: string, what: string): [string, RangedTensor] => {
      const found = [name, fromDisk(name)].find((candidate) => tensors.has(candidate));
      if (found === undefined) throw new InputError(`${localDir}: ${what}, which the base model does not have`);
      return [found, tensors.get(found) as RangedTensor];
    };
    for (const [module, pair] of pairs) {
      const [name, weight] = inBase(`${module}.weight`, `LoRA of ${module}`);
      tensors.set(name, foldLora(weight, pair, loraScale(meta, rank), `${localDir}: tensor ${name}`));
    }
    const kind = meta.stabilised ? `, rank-stabilised` : '';
    notes.push(`LoRA of rank ${rank}, alpha ${meta.alpha}${kind}, is folded into ${pairs.size} weights`);
    for (const [own, tensor] of saved) {
      // Weights of a whole model hold the original beside it, or not at all.
      const [name, weight] = base.size > 0 && !tensors.has(own) ? [own, tensor] : inBase(own, `tensor ${own}`);
      if (String(weight.shape) !== String(tensor.shape))
        throw new InputError(`${localDir}: tensor ${own}: [${tensor.shape}], but [${weight.shape}] in the base model`);
      tensors.set(name, tensor);
    }
    if (saved.size > 0)
      notes.push(
        `${saved.size} tensors of modules_to_save take the place of the base's: ${[...saved.keys()].slice(0, 5).join(', ')}`,
      );
  }
  checkDecoder(tensors, config, localDir);
  if (tensors.size > 0) tieHead(tensors, config, options, notes);
  const nameOnDisk = config.modelType === 'qwen2_5_vl' ? toDiskName : (name: string) => name;
  const sources = [...tensors].map(([name, tensor]) => ({ name: nameOnDisk(name), tensor }));
  refuseNames(
    sources.map(({ name }) => name),
    localDir,
  );
  return { sources, adapter: meta && lora === 'adapter' ? { pairs, saved, meta, rank } : null, notes, close };
}

/**
 * Writes an HF folder from the shards of all ranks, in pieces of bounded size; whole or not at all.
 * @throws InputError in one line naming file and tensor: a missing, swapped or foreign rank, other shapes, a gap, a
 * damaged or truncated file, a pickle that names anything unknown; or a target that must not be replaced.
 */
export async function mergeCheckpoint(options: MergeOptions): Promise<MergeResult> {
  const { hfModelPath, targetDir, onProgress, onBytes } = options;
  if (!existsSync(options.localDir)) throw new InputError(`${options.localDir}: no such folder (--local-dir)`);
  checkTarget(options);
  const config = readBaseConfig(hfModelPath);
  const dtype = options.dtype === 'auto' ? dtypeOfBase(config) : options.dtype;
  const source = openSource(options, config);
  let plan: Plan | null = null;
  try {
    plan = planTensors(options, config, source);
    const { sources, adapter, notes } = plan;
    const files = planHfFiles({
      tensors: sources,
      dtype,
      ...(options.maxShardSize === undefined ? {} : { maxShardSize: options.maxShardSize }),
    });
    const planned = files.flatMap((file) => file.tensors);
    const common = { targetDir, worldSize: source.worldSize, dtype, notes };
    if (options.dryRun)
      return {
        ...common,
        tensors: planned.length,
        bytes: planned.reduce((sum, { bytes }) => sum + bytes, 0),
        files: [
          ...(sources.length > 0 ? files.map(({ name }) => name) : []),
          ...(adapter ? [`${ADAPTER_FOLDER}/adapter_model.safetensors`] : []),
        ],
        overflowed: 0,
      };
    const adapterFiles = (temporary: string): string[] =>
      adapter
        ? writeAdapter({
            dir: temporary,
            ...adapter,
            base: hfModelPath,
            dtypeOf: (tensor) => planHfFiles({ tensors: [{ name: '', tensor }], dtype })[0]!.tensors[0]!.dtype,
          })
        : [];
    if (sources.length === 0) {
      refuseForeignTarget(targetDir);
      const written = await writeFolderAtomic(targetDir, async (temporary) => {
        const names = adapterFiles(temporary);
        source.verify();
        return names;
      });
      return { ...common, tensors: 2 * (adapter?.pairs.size ?? 0), bytes: 0, files: written, overflowed: 0 };
    }
    let extra: string[] = [];
    const written = await writeHfFolder({
      dir: targetDir,
      copyFrom: hfModelPath,
      ...(options.tieWordEmbedding === undefined ? {} : { tied: options.tieWordEmbedding }),
      dtype,
      ...(options.maxShardSize === undefined ? {} : { maxShardSize: options.maxShardSize }),
      tensors: sources,
      onTensor: (tensor, done, total) => onProgress?.({ tensor, done, total }),
      ...(onBytes ? { onBytes } : {}),
      checksums: options.verify === true,
      ...(options.signal ? { signal: options.signal } : {}),
      complete: async (temporary, ranges) => {
        extra = adapterFiles(temporary);
        source.verify();
        if (options.verify) await verifyWritten(temporary, { planned, ranges, signal: options.signal });
      },
    });
    return { ...common, ...written, files: [...written.files, ...extra] };
  } finally {
    plan?.close();
    source.close();
  }
}
