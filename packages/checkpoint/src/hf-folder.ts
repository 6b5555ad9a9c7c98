/** @file Hugging Face model folders: config.json beside model.safetensors, or an index and its shards. */
import { copyFileSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { InputError, messageOf } from '@frame-thinker/core';
import { asFloat32, type Dtype, type FloatDtype, type TensorData } from './dtype.ts';
import { removeStale, writeFolderAtomic } from './folder.ts';
import { byteLengthOf } from './safetensors.ts';
import { createSafetensors, openSafetensors, type SafetensorsFile } from './safetensors-file.ts';
import { readSource, type TensorSource } from './tensor-source.ts';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/** An open model folder; headers are read at once, tensors when asked for. */
export interface HfFolder {
  readonly dir: string;
  readonly names: readonly string[];
  has(name: string): boolean;
  shape(name: string): readonly number[];
  dtype(name: string): Dtype;
  /** Values as float32, whatever floating-point dtype the file has. @throws InputError naming file and tensor. */
  read(name: string): Float32Array;
  /** As stored. */
  readRaw(name: string): TensorData;
  close(): void;
}

/** Parses a JSON file. @throws InputError naming it. */
export function readJsonFile(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new InputError(
      error instanceof SyntaxError
        ? `${path}: damaged: not JSON (${messageOf(error).replace(/\s+/g, ' ')})`
        : `${path}: cannot be read (${messageOf(error)})`,
    );
  }
}

/** File name of each tensor, by the index. */
function readIndex(path: string): Map<string, string> {
  const json = readJsonFile(path) as { weight_map?: Record<string, unknown> } | null;
  const entries = Object.entries(json?.weight_map ?? {});
  if (entries.length === 0) throw new InputError(`${path}: damaged: it has no weight_map`);
  for (const [name, file] of entries)
    if (typeof file !== 'string' || file !== basename(file) || file.includes(sep))
      throw new InputError(`${path}: tensor ${name}: ${JSON.stringify(file)} is not a file name`);
  return new Map(entries as [string, string][]);
}

/**
 * Opens `model.safetensors` or the shards that `model.safetensors.index.json` names.
 * @throws InputError naming the file, and the tensor where it is about one.
 */
export function openHfFolder(dir: string): HfFolder {
  const files: SafetensorsFile[] = [];
  const places = new Map<string, SafetensorsFile>();
  const close = () => {
    for (const file of files.splice(0)) file.close();
  };
  try {
    if (existsSync(join(dir, INDEX))) {
      const index = readIndex(join(dir, INDEX));
      const opened = new Map<string, SafetensorsFile>();
      for (const [name, fileName] of index) {
        let file = opened.get(fileName);
        if (!file) {
          file = openSafetensors(join(dir, fileName));
          files.push(file);
          opened.set(fileName, file);
        }
        file.entry(name);
        places.set(name, file);
      }
    } else if (existsSync(join(dir, SINGLE))) {
      const file = openSafetensors(join(dir, SINGLE));
      files.push(file);
      for (const name of file.header.entries.keys()) places.set(name, file);
    } else throw new InputError(`${dir}: not a model folder: neither ${SINGLE} nor ${INDEX} is there`);
  } catch (error) {
    close();
    throw error;
  }
  const fileOf = (name: string): SafetensorsFile => {
    const file = places.get(name);
    if (!file) throw new InputError(`${dir}: the model has no tensor ${name}`);
    return file;
  };
  return {
    dir,
    names: [...places.keys()],
    has: (name) => places.has(name),
    shape: (name) => fileOf(name).entry(name).shape,
    dtype: (name) => fileOf(name).entry(name).dtype,
    readRaw: (name) => fileOf(name).read(name),
    read: (name) => {
      const values = asFloat32(fileOf(name).read(name));
      if (values) return values;
      throw new InputError(`${fileOf(name).path}: tensor ${name} is ${fileOf(name).entry(name).dtype}, not a float`);
    },
    close,
  };
}

/** Files of a model folder that are not its weights. */
export function isModelFile(name: string): boolean {
  return (
    /^(config|generation_config|(pre)?processor_config|video_preprocessor_config|chat_template)\.json$/.test(name) ||
    /^(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$/.test(name) ||
    /^(merges\.txt|chat_template\.jinja|tokenizer\.model|LICENSE.*|README\.md)$/.test(name)
  );
}

const isWeightFile = (name: string) =>
  name === SINGLE || name === INDEX || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name);

/** Copies config, tokenizer, processor and generation files. @throws InputError when there is no config.json. */
export function copyModelFiles(from: string, to: string): string[] {
  if (!existsSync(join(from, 'config.json')))
    throw new InputError(`${from}: not a model folder: config.json is not there`);
  const names = readdirSync(from).filter((name) => isModelFile(name) && statSync(join(from, name)).isFile());
  for (const name of names) copyFileSync(join(from, name), join(to, name));
  return names;
}

export type WriteDtype = 'keep' | 'fp32' | 'bf16' | 'fp16';

const STORED: Record<Exclude<WriteDtype, 'keep'>, FloatDtype> = { fp32: 'F32', bf16: 'BF16', fp16: 'F16' };
const CONFIG_NAMES: Partial<Record<Dtype, string>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };

export interface WriteHfFolderOptions {
  /** Target folder. One that exists is replaced at the end, and only if it holds nothing but a model's files. */
  dir: string;
  tensors: Iterable<TensorSource>;
  /** For floating-point tensors; keep: each its own. */
  dtype: WriteDtype;
  /** Bytes of data in a file; more makes shards and an index. Default 5 GB. */
  maxShardSize?: number;
  /** Folder whose config, tokenizer, processor and generation files are copied. */
  copyFrom: string;
  onTensor?: (name: string, done: number, total: number) => void;
}

export interface WrittenHfFolder {
  files: string[];
  tensors: number;
  /** Bytes of tensor data. */
  bytes: number;
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
}

interface PlannedTensor {
  source: TensorSource;
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  bytes: number;
}

function planFiles(
  options: Pick<WriteHfFolderOptions, 'tensors' | 'dtype' | 'maxShardSize'>,
): { name: string; tensors: PlannedTensor[] }[] {
  const { dtype: target, maxShardSize = 5e9 } = options;
  const groups: PlannedTensor[][] = [[]];
  let size = 0;
  for (const source of options.tensors) {
    const own = source.dtype ?? 'F32';
    const dtype = target !== 'keep' && CONFIG_NAMES[own] ? STORED[target] : own;
    const bytes = byteLengthOf(dtype, source.shape);
    if (size > 0 && size + bytes > maxShardSize) {
      groups.push([]);
      size = 0;
    }
    size += bytes;
    groups.at(-1)!.push({ source, name: source.name, dtype, shape: source.shape, bytes });
  }
  if (groups.length === 1) return [{ name: SINGLE, tensors: groups[0]! }];
  const digits = (n: number) => String(n).padStart(5, '0');
  return groups.map((tensors, i) => ({
    name: `model-${digits(i + 1)}-of-${digits(groups.length)}.safetensors`,
    tensors,
  }));
}

/** Refuses to replace a folder that holds anything a model folder would not. */
function refuseForeignTarget(dir: string): void {
  if (!existsSync(dir)) return;
  if (!statSync(dir).isDirectory()) throw new InputError(`${dir}: is a file; give a folder for the model`);
  const foreign = readdirSync(dir).find((name) => !isModelFile(name) && !isWeightFile(name));
  if (foreign !== undefined)
    throw new InputError(`${dir}: holds ${foreign}, which is no model file and would be lost; give another folder`);
}

/** config.json names the dtype that the weights were written in. */
function rewriteConfigDtype(path: string, dtypes: Set<Dtype>): void {
  const name = dtypes.size === 1 ? CONFIG_NAMES[[...dtypes][0]!] : undefined;
  if (!name) return;
  const config = readJsonFile(path) as Record<string, unknown>;
  const parts = [config, config.text_config, config.vision_config];
  for (const part of parts)
    for (const key of ['dtype', 'torch_dtype'])
      if (typeof part === 'object' && part !== null && typeof (part as Record<string, unknown>)[key] === 'string')
        (part as Record<string, unknown>)[key] = name;
  writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`);
}

/**
 * Writes a model folder atomically, one tensor in memory at a time.
 * @throws InputError when the target holds other files, the disk is full, or a source cannot be read.
 */
export async function writeHfFolder(options: WriteHfFolderOptions): Promise<WrittenHfFolder> {
  const { dir, copyFrom, onTensor } = options;
  refuseForeignTarget(dir);
  removeStale(dirname(dir), (name) => name === basename(dir));
  const files = planFiles(options);
  const total = files.reduce((sum, file) => sum + file.tensors.length, 0);
  return await writeFolderAtomic(dir, async (temporary) => {
    const copied = copyModelFiles(copyFrom, temporary);
    const result: WrittenHfFolder = {
      files: [...copied, ...files.map((f) => f.name)],
      tensors: 0,
      bytes: 0,
      overflowed: 0,
    };
    for (const file of files) {
      const path = join(temporary, file.name);
      const writer = createSafetensors({ path, tensors: file.tensors, metadata: { format: 'pt' }, sync: false });
      try {
        for (const { source, name, dtype, bytes } of file.tensors) {
          const stored = await readSource(source, dtype);
          writer.write(name, stored.bytes);
          result.overflowed += stored.overflowed;
          result.bytes += bytes;
          result.tensors++;
          onTensor?.(name, result.tensors, total);
        }
        writer.finish();
      } catch (error) {
        writer.abort();
        throw error;
      }
    }
    if (files.length > 1) {
      const map = files.flatMap((file) => file.tensors.map(({ name }) => [name, file.name] as const));
      const index = { metadata: { total_size: result.bytes }, weight_map: Object.fromEntries(map.sort()) };
      writeFileSync(join(temporary, INDEX), `${JSON.stringify(index, null, 2)}\n`);
      result.files.push(INDEX);
    }
    const floats = files.flatMap((file) => file.tensors.map(({ dtype }) => dtype)).filter((d) => CONFIG_NAMES[d]);
    rewriteConfigDtype(join(temporary, 'config.json'), new Set(floats));
    return result;
  });
}
