/** @file Megatron's `mp_rank_TT[_PPP]/model.pt` as a source of a merge: tensor, pipeline and virtual pipeline parallel. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  joinTensors,
  openTorchArchive,
  type RangedTensor,
  rowsOfTensor,
  stateDictOf,
  type TorchArchive,
  torchTensorOf,
  type Weave,
  wovenTensor,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { isKind, type PickleValue } from '@frame-thinker/pickle';
import type { BaseConfig } from './base-config.ts';
import { cutOf, isIgnored, localLayerOf, type MegatronCut, stageOf } from './megatron-names.ts';
import type { MergeSource } from './source.ts';

const MAX_VIRTUAL = 1024;

/** Tensors of one chunk of the pipeline in one file. */
type Chunk = Map<string, RangedTensor>;

interface ModelFile {
  tensorRank: number;
  pipelineRank: number;
  archive: TorchArchive;
  chunks: Chunk[];
}

/** The folder of the mp_rank folders, and them. */
function findFiles(localDir: string): { path: string; tensorRank: number; pipelineRank: number }[] {
  const dir = [join(localDir, 'model'), localDir].find(
    (folder) => existsSync(folder) && readdirSync(folder).some((name) => /^mp_rank_\d+(_\d+)?$/.test(name)),
  );
  if (dir === undefined) {
    const distributed = [join(localDir, 'dist_ckpt'), join(localDir, 'model/dist_ckpt')].find((path) =>
      existsSync(path),
    );
    throw new InputError(
      distributed
        ? `${distributed}: a distributed checkpoint of megatron-core cannot be read; save with mp_rank folders, or convert it with megatron-core`
        : `${localDir}: has no mp_rank_TT[_PPP]/model.pt; give the folder above them or above model/`,
    );
  }
  return readdirSync(dir).flatMap((name) => {
    const [, tensorRank, pipelineRank = '0'] = /^mp_rank_(\d+)(?:_(\d+))?$/.exec(name) ?? [];
    if (tensorRank === undefined) return [];
    const path = join(dir, name, 'model.pt');
    if (!existsSync(path)) throw new InputError(`${path}: missing`);
    return [{ path, tensorRank: Number(tensorRank), pipelineRank: Number(pipelineRank) }];
  });
}

function readChunks(archive: TorchArchive, skipped: Set<string>): Chunk[] {
  const { root, path } = archive;
  const parts: readonly PickleValue[] = isKind(root, 'list') ? root.items : [root];
  if (parts.length === 0) throw new InputError(`${path}: holds no state dict`);
  if (parts.length > MAX_VIRTUAL) throw new InputError(`${path}: ${parts.length} virtual stages`);
  return parts.map((part) => {
    const chunk: Chunk = new Map();
    for (const [name, value] of stateDictOf(part, path)) {
      const fail = (what: string) => new InputError(`${path}: tensor ${name}: ${what}`);
      if (isIgnored(name)) continue;
      const tensor = torchTensorOf(value, archive, fail);
      if (!tensor) skipped.add(name);
      else if (tensor.cut.kind !== 'none') throw fail('a distributed tensor, which Megatron does not write');
      else chunk.set(name, tensor.local);
    }
    return chunk;
  });
}

/** Files as [pipeline rank][tensor rank], all there. */
function gridOf(files: ModelFile[]): ModelFile[][] {
  const tp = Math.max(...files.map((f) => f.tensorRank)) + 1;
  const pp = Math.max(...files.map((f) => f.pipelineRank)) + 1;
  if (tp * pp > 1 << 16) throw new InputError(`${files[0]?.archive.path}: ${tp} · ${pp} ranks`);
  return Array.from({ length: pp }, (_, p) =>
    Array.from({ length: tp }, (_, t) => {
      const found = files.filter((f) => f.tensorRank === t && f.pipelineRank === p);
      if (found.length !== 1)
        throw new InputError(
          `${files[0]?.archive.path}: ${found.length} files of tensor rank ${t} of ${tp}, pipeline rank ${p} of ${pp} beside it; one is needed`,
        );
      return found[0] as ModelFile;
    }),
  );
}

/** Fused queries, keys and values as they lie in the parts: a group's queries, its key, its value, then the next group's. */
function weaveOf(parts: RangedTensor[], heads: number, groups: number, fail: (what: string) => InputError): Weave {
  const perGroup = heads / groups;
  const localGroups = groups / parts.length;
  const rows = parts[0]?.shape[0] ?? 0;
  const headRows = rows / localGroups / (perGroup + 2);
  if (![perGroup, localGroups, headRows].every((n) => Number.isInteger(n) && n > 0))
    throw fail(`[${rows}] rows a part do not split into ${heads} heads of ${groups} groups over ${parts.length} parts`);
  return { source: joinTensors(parts, 0), rows: [perGroup * headRows, headRows, headRows] };
}

interface Context {
  config: BaseConfig;
  isValueModel: boolean;
  /** Names of copies that differ between tensor ranks. */
  differing: string[];
}

function assemble(
  cut: MegatronCut,
  parts: RangedTensor[],
  context: Context,
  fail: (what: string) => InputError,
): [string, RangedTensor][] {
  const { config } = context;
  const [first] = parts as [RangedTensor];
  for (const part of parts)
    if (String(part.shape) !== String(first.shape) || part.dtype !== first.dtype)
      throw fail(`${part.dtype} [${part.shape}] in one tensor rank, ${first.dtype} [${first.shape}] in another`);
  const need = (value: number | null, key: string): number => {
    if (value === null) throw fail(`the base's config.json has no ${key}, which is needed to split it`);
    return value;
  };
  const oneCopy = (name: string): RangedTensor => {
    if (parts.some((part) => part.fingerprint !== first.fingerprint)) context.differing.push(name);
    return first;
  };
  switch (cut.kind) {
    case 'copies':
      return [[cut.name, oneCopy(cut.name)]];
    case 'join':
      return [[cut.name, joinTensors(parts, cut.dim)]];
    case 'vocabulary': {
      if (cut.name === 'lm_head.weight' && context.isValueModel) return [['score.weight', oneCopy('score.weight')]];
      const whole = joinTensors(parts, 0);
      const vocabulary = need(config.vocabSize, 'vocab_size');
      if ((whole.shape[0] as number) < vocabulary)
        throw fail(`${whole.shape[0]} rows, the config's vocabulary has ${vocabulary}`);
      return [[cut.name, rowsOfTensor(whole, 0, vocabulary)]];
    }
    case 'stacked': {
      const rows = first.shape[0] as number;
      if (rows % 2 !== 0) throw fail(`${rows} rows do not split in two`);
      return cut.names.map((name, i) => [
        name,
        joinTensors(
          parts.map((part) => rowsOfTensor(part, (i * rows) / 2, ((i + 1) * rows) / 2)),
          0,
        ),
      ]);
    }
    case 'qkv': {
      const heads = need(config.heads, 'num_attention_heads');
      const weave = weaveOf(parts, heads, config.kvHeads ?? heads, fail);
      return cut.names.map((name, strand) => [name, wovenTensor(weave, [strand])]);
    }
    case 'fused-qkv': {
      const heads = need(config.visionHeads, 'vision_config.num_heads');
      return [[cut.name, wovenTensor(weaveOf(parts, heads, heads, fail), [0, 1, 2])]];
    }
  }
}

/** The first and the last stage can be told by what only they hold; where files changed places, it is in another. */
function checkStages(grid: ModelFile[][], needsHead: boolean): void {
  const virtual = grid[0]?.[0]?.chunks.length ?? 0;
  const stages = Array.from({ length: virtual }, (_, v) =>
    grid.map(([lead]) => ({ lead: lead as ModelFile, v })),
  ).flat();
  const found = new Set<string>();
  for (const [at, { lead, v }] of stages.entries())
    for (const name of lead.chunks[v]?.keys() ?? []) {
      const place = stageOf(name);
      if (place === null) continue;
      const [first, last] = [at === 0, at === stages.length - 1];
      const fits = (first && place !== 'last') || (last && place !== 'first');
      if (!fits)
        throw new InputError(
          `${lead.archive.path}: tensor ${name}: belongs in the ${place === 'last' ? 'last' : 'first'} stage of the pipeline, this is stage ${at + 1} of ${stages.length}: are files swapped?`,
        );
      found.add(`${name.replace(/^language_model\./, '')} ${first ? 'first' : 'last'}`);
    }
  const [first, last] = [stages[0], stages.at(-1)];
  for (const [name, where, stage] of [
    ['embedding.word_embeddings.weight', 'first', first],
    ['decoder.final_layernorm.weight', stages.length === 1 ? 'first' : 'last', last],
    ...(needsHead ? ([['output_layer.weight', stages.length === 1 ? 'first' : 'last', last]] as const) : []),
  ] as const)
    if (!found.has(`${name} ${where}`))
      throw new InputError(
        `${stage?.lead.archive.path}: tensor ${name}: missing in the ${where} stage of the pipeline`,
      );
}

function assembleAll(grid: ModelFile[][], context: Context): Map<string, RangedTensor> {
  const whole = new Map<string, RangedTensor>();
  const virtual = grid[0]?.[0]?.chunks.length ?? 0;
  let firstLayer = 0;
  // Layers go through the ranks of the pipeline once for each virtual stage.
  for (let v = 0; v < virtual; v++)
    for (const ranks of grid) {
      const [lead] = ranks as [ModelFile];
      const layers = new Set<number>();
      for (const { archive, chunks } of ranks) {
        if (chunks.length !== virtual)
          throw new InputError(`${archive.path}: ${chunks.length} virtual stages, others have ${virtual}`);
        for (const [a, b] of [
          [archive, lead.archive],
          [lead.archive, archive],
        ] as const) {
          const [own, other] = a === archive ? [chunks[v], lead.chunks[v]] : [lead.chunks[v], chunks[v]];
          const lacking = [...(other?.keys() ?? [])].find((name) => !own?.has(name));
          if (lacking !== undefined)
            throw new InputError(`${a.path}: tensor ${lacking}: missing, though ${b.path} holds it`);
        }
      }
      for (const name of lead.chunks[v]?.keys() ?? []) {
        const fail = (what: string) => new InputError(`${lead.archive.path}: tensor ${name}: ${what}`);
        const local = localLayerOf(name);
        if (local !== null) layers.add(local);
        const cut = cutOf(name, local === null ? null : firstLayer + local);
        if (!cut) throw fail('a name that is not known (dense Qwen models and Qwen2.5-VL are)');
        const parts = ranks.map(({ chunks }) => chunks[v]?.get(name) as RangedTensor);
        for (const [diskName, tensor] of assemble(cut, parts, context, fail)) {
          const before = whole.get(diskName);
          // The last stage may hold a copy of tied embeddings.
          if (before && before.fingerprint !== tensor.fingerprint)
            throw fail(`${diskName} is there twice, and differs`);
          whole.set(diskName, tensor);
        }
      }
      if ([...layers].some((layer) => layer >= layers.size))
        throw new InputError(`${lead.archive.path}: layers are missing between others`);
      firstLayer += layers.size;
    }
  const { layers } = context.config;
  if (layers !== null && layers !== firstLayer)
    throw new InputError(
      `${grid[0]?.[0]?.archive.path}: ${firstLayer} layers in all ranks, the base's config.json has ${layers}`,
    );
  return whole;
}

/**
 * A file that is a copy of another's would go unnoticed: nothing in it says its rank. Told by what every rank and stage has of its
 * own; tensors that tensor ranks have copies of say nothing.
 */
function refuseCopies(grid: ModelFile[][]): void {
  const seen = new Map<string, string>();
  for (const { archive, chunks } of grid.flat())
    for (const chunk of chunks) {
      const own = [...chunk].filter(([name]) => cutOf(name, localLayerOf(name))?.kind !== 'copies');
      if (own.length === 0) continue;
      const print = JSON.stringify(own.map(([name, tensor]) => [name, tensor.fingerprint]));
      const other = seen.get(print);
      if (other !== undefined)
        throw new InputError(
          `${archive.path}: holds the same tensors as ${other === archive.path ? 'another stage in it' : other}; a rank is there twice`,
        );
      seen.set(print, archive.path);
    }
}

/**
 * Opens the files of all ranks and puts Hugging Face's tensors together.
 * @throws InputError in one line naming file and tensor: a missing rank, other shapes or names, what cannot be split by
 * the config, anything that the archive or its pickle must not be.
 */
export function openMegatron(
  localDir: string,
  options: { config: BaseConfig; isValueModel: boolean; tied: boolean },
): MergeSource {
  const files: ModelFile[] = [];
  const close = () => {
    for (const { archive } of files.splice(0)) archive.close();
  };
  try {
    const skipped = new Set<string>();
    for (const { path, tensorRank, pipelineRank } of findFiles(localDir)) {
      const archive = openTorchArchive(path);
      files.push({ tensorRank, pipelineRank, archive, chunks: [] });
      (files.at(-1) as ModelFile).chunks = readChunks(archive, skipped);
      archive.forget();
    }
    const grid = gridOf(files);
    refuseCopies(grid);
    checkStages(grid, options.isValueModel || !options.tied);
    const context: Context = { ...options, differing: [] };
    const tensors = assembleAll(grid, context);
    const notes: string[] = [];
    if (skipped.size > 0)
      notes.push(`${skipped.size} entries that are no tensors are left out: ${[...skipped].slice(0, 5).join(', ')}`);
    if (context.differing.length > 0)
      notes.push(
        `${context.differing.length} tensors differ between tensor ranks that should hold copies; rank 0's are taken: ${context.differing.slice(0, 5).join(', ')}`,
      );
    return {
      worldSize: files.length,
      tensors,
      notes,
      verify: () => {
        for (const { archive } of files) archive.verify();
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
