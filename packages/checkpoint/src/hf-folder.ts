/** @file Hugging Face model folders: config.json beside model.safetensors, or an index and its shards. */
import { copyFileSync, existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join, sep } from 'node:path';
import { InputError, messageOf } from '@frame-thinker/core';
import { asFloat32, type Dtype, type TensorData } from './dtype.ts';
import type { RangedTensor } from './ranged-tensor.ts';
import { readTextFile, refuseIrregular } from './regular-file.ts';
import { openSafetensors, type SafetensorsFile } from './safetensors-file.ts';

export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';

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
  /** As stored, read by ranges. */
  ranged(name: string): RangedTensor;
  close(): void;
}

/** Parses a JSON file. @throws InputError naming it. */
export function readJsonFile(path: string): unknown {
  try {
    return JSON.parse(readTextFile(path));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${path}: damaged: not JSON (${messageOf(error).replace(/\s+/g, ' ')})`);
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
    ranged: (name) => fileOf(name).ranged(name),
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

export const isWeightFile = (name: string) =>
  name === SINGLE || name === INDEX || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name);

/**
 * Copies config, tokenizer, processor and generation files.
 * @throws InputError when there is no config.json, or one of them is no regular file.
 */
export function copyModelFiles(from: string, to: string): string[] {
  if (!existsSync(join(from, 'config.json')))
    throw new InputError(`${from}: not a model folder: config.json is not there`);
  const names = readdirSync(from).filter((name) => {
    const stats = isModelFile(name) ? statSync(join(from, name), { throwIfNoEntry: false }) : null;
    if (stats === undefined) throw new InputError(`${join(from, name)}: is a link to what is not there`);
    if (stats === null || stats.isDirectory()) return false;
    refuseIrregular(join(from, name), stats);
    return true;
  });
  for (const name of names) copyFileSync(join(from, name), join(to, name));
  return names;
}
