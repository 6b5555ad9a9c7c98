/**
 * @file Weights and moments in shards, cut on dim 0 as FSDP2 does: rank r holds rows [r·c, (r+1)·c) of n, c = ceil(n/W),
 * so later ranks may hold none. `__metadata__.shards` = JSON {name: {dim, shape, offset}}: whole shape, first row.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError, InvariantError } from '@frame-thinker/core';
import { asFloat32, type Dtype, elementCount, sizeOfDtype, type TensorData, viewAs } from './dtype.ts';
import { readJsonFile } from './hf-folder.ts';
import { joinTensors, type RangedTensor, reshapeTensor } from './ranged-tensor.ts';
import {
  createSafetensors,
  openSafetensors,
  type SafetensorsFile,
  type SafetensorsWriter,
} from './safetensors-file.ts';
import { readSource, type TensorSource } from './tensor-source.ts';

export type ShardKind = 'model' | 'optim';

/** Names the world size of the shards beside it. */
export const FSDP_CONFIG = 'fsdp_config.json';

export const shardFileName = (kind: ShardKind, worldSize: number, rank: number): string =>
  `${kind}_world_size_${worldSize}_rank_${rank}.safetensors`;

/** Rows [start, end) of n that a rank holds. */
export function shardRange(n: number, worldSize: number, rank: number): { start: number; end: number } {
  const chunk = Math.ceil(n / worldSize);
  return { start: Math.min(n, rank * chunk), end: Math.min(n, (rank + 1) * chunk) };
}

/** A scalar is cut as one row of one value. */
const rowsOf = (shape: readonly number[]) => shape[0] ?? 1;
const localShape = (shape: readonly number[], rows: number) => [rows, ...shape.slice(1)];

/** Writes the files of all ranks, or of one, reading one tensor at a time; syncing is left to who writes the folder. */
export async function writeShards(options: {
  dir: string;
  kind: ShardKind;
  worldSize: number;
  rank?: number | undefined;
  tensors: Iterable<TensorSource>;
}): Promise<void> {
  const { dir, kind, worldSize, rank: only } = options;
  if (!Number.isInteger(worldSize) || worldSize < 1) throw new InvariantError(`world size ${worldSize}`);
  const ranks = only === undefined ? Array.from({ length: worldSize }, (_, rank) => rank) : [only];
  const sources = [...options.tensors];
  const writers: SafetensorsWriter[] = [];
  try {
    for (const rank of ranks) {
      const cut = sources.map(({ name, shape, dtype = 'F32' }) => {
        const { start, end } = shardRange(rowsOf(shape), worldSize, rank);
        return { name, dtype, shape: localShape(shape, end - start), whole: shape, offset: start };
      });
      const shards = Object.fromEntries(cut.map(({ name, whole, offset }) => [name, { dim: 0, shape: whole, offset }]));
      const metadata = { shards: JSON.stringify(shards), world_size: String(worldSize), rank: String(rank) };
      writers.push(
        createSafetensors({
          path: join(dir, shardFileName(kind, worldSize, rank)),
          tensors: cut,
          metadata,
          sync: false,
        }),
      );
    }
    for (const source of sources) {
      const { bytes } = await readSource(source, source.dtype ?? 'F32');
      const rows = rowsOf(source.shape);
      const rowBytes = rows === 0 ? 0 : bytes.byteLength / rows;
      for (const [i, writer] of writers.entries()) {
        const { start, end } = shardRange(rows, worldSize, ranks[i]!);
        writer.write(source.name, bytes.subarray(start * rowBytes, end * rowBytes));
      }
    }
    for (const writer of writers) writer.finish();
  } catch (error) {
    for (const writer of writers) writer.abort();
    throw error;
  }
}

/** Whole tensors put together from the shards of all ranks, one at a time. */
export interface ShardedTensors {
  readonly worldSize: number;
  readonly names: readonly string[];
  shape(name: string): readonly number[];
  dtype(name: string): Dtype;
  /** Values as float32. @throws InputError naming file and tensor. */
  read(name: string): Float32Array;
  /** As stored. */
  readRaw(name: string): TensorData;
  /** As stored, read by ranges. */
  ranged(name: string): RangedTensor;
  close(): void;
}

interface Piece {
  file: SafetensorsFile;
  dtype: Dtype;
  shape: readonly number[];
  offset: number;
  rows: number;
}

/** World size by the file names, all ranks there. @throws InputError */
function findWorldSize(dir: string, kind: ShardKind): number {
  if (!existsSync(dir)) throw new InputError(`${dir}: no such folder; give a checkpoint's actor folder`);
  const names = readdirSync(dir);
  const worlds = new Set<number>();
  for (const name of names) {
    const match = /^(model|optim)_world_size_(\d+)_rank_\d+\.safetensors$/.exec(name);
    if (match?.[1] === kind) worlds.add(Number(match[2]));
  }
  if (worlds.size === 0) {
    const torch = names.find((name) => /^model_world_size_\d+_rank_\d+\.pt$/.test(name));
    throw new InputError(
      torch
        ? `${join(dir, torch)}: torch's shards (.pt) cannot be resumed from; merge them with pnpm merge, or give this project's own checkpoint`
        : `${dir}: has no ${kind}_world_size_W_rank_R.safetensors; give a checkpoint's actor folder (global_step_N/actor)`,
    );
  }
  if (worlds.size > 1)
    throw new InputError(
      `${dir}: holds ${kind} shards of mixed world sizes (${[...worlds].sort().join(', ')}); keep one set`,
    );
  const [worldSize = 0] = worlds;
  const configPath = join(dir, FSDP_CONFIG);
  const configured = (readJsonFile(configPath) as { world_size?: unknown } | null)?.world_size;
  if (configured !== worldSize)
    throw new InputError(
      `${configPath}: world_size is ${JSON.stringify(configured)}, the ${kind} shards are of ${worldSize}`,
    );
  for (let rank = 0; rank < worldSize; rank++)
    if (!names.includes(shardFileName(kind, worldSize, rank)))
      throw new InputError(`${join(dir, shardFileName(kind, worldSize, rank))}: missing: rank ${rank} of ${worldSize}`);
  return worldSize;
}

function piecesOf(file: SafetensorsFile, worldSize: number, rank: number): Map<string, Piece> {
  const { metadata, entries } = file.header;
  if (metadata.world_size !== String(worldSize) || metadata.rank !== String(rank))
    throw new InputError(
      `${file.path}: its name says rank ${rank} of ${worldSize}, its content rank ${metadata.rank} of ${metadata.world_size}`,
    );
  let shards: unknown;
  try {
    shards = JSON.parse(metadata.shards ?? '');
  } catch {
    throw new InputError(`${file.path}: damaged: __metadata__.shards is not JSON`);
  }
  const described = new Map(Object.entries((shards ?? {}) as Record<string, unknown>));
  const pieces = new Map<string, Piece>();
  for (const { name, dtype, shape: local } of entries.values()) {
    const fail = (what: string) => new InputError(`${file.path}: tensor ${name}: ${what}`);
    const { dim, shape, offset } = (described.get(name) ?? {}) as { dim?: unknown; shape?: unknown; offset?: unknown };
    const isSize = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
    if (!Array.isArray(shape) || !shape.every(isSize) || !isSize(offset))
      throw fail('__metadata__.shards does not say its shape and offset');
    if (dim !== 0) throw fail(`is cut on dim ${JSON.stringify(dim)}; only dim 0 is known`);
    const rows = local[0];
    if (rows === undefined || String(localShape(shape, rows)) !== String(local))
      throw fail(`a shard of shape [${local}] does not fit the whole shape [${shape}]`);
    pieces.set(name, { file, dtype, shape, offset, rows });
    described.delete(name);
  }
  for (const name of described.keys())
    throw new InputError(`${file.path}: tensor ${name}: named in shards, but not there`);
  return pieces;
}

/** Rows covered exactly once, one shape and dtype. */
function checkPieces(name: string, pieces: Piece[]): void {
  const [first] = pieces as [Piece];
  let at = 0;
  for (const { file, dtype, shape, offset, rows } of [...pieces].sort(
    (a, b) => a.offset - b.offset || a.rows - b.rows,
  )) {
    const fail = (what: string) => new InputError(`${file.path}: tensor ${name}: ${what}`);
    if (String(shape) !== String(first.shape) || dtype !== first.dtype)
      throw fail(`${dtype} [${shape}], but ${first.dtype} [${first.shape}] in ${first.file.path}`);
    if (offset !== at && rows > 0)
      throw fail(`${offset < at ? 'overlap' : 'gap'}: its rows start at ${offset}, expected ${at}`);
    at += rows;
  }
  if (at !== rowsOf(first.shape))
    throw new InputError(`${first.file.path}: tensor ${name}: the shards hold ${at} rows of ${rowsOf(first.shape)}`);
}

/**
 * Opens the shards of all ranks and checks that they make whole tensors.
 * @throws InputError naming file and tensor: a missing rank, mixed world sizes, different shapes, a gap, an overlap,
 * a truncated file. `open` may watch what is read.
 */
export function openShards(
  dir: string,
  kind: ShardKind,
  open: (path: string) => SafetensorsFile = openSafetensors,
): ShardedTensors {
  const worldSize = findWorldSize(dir, kind);
  const files: SafetensorsFile[] = [];
  const close = () => {
    for (const file of files.splice(0)) file.close();
  };
  const tensors = new Map<string, Piece[]>();
  try {
    for (let rank = 0; rank < worldSize; rank++) {
      const file = open(join(dir, shardFileName(kind, worldSize, rank)));
      files.push(file);
      for (const [name, piece] of piecesOf(file, worldSize, rank)) {
        const pieces = tensors.get(name) ?? [];
        if (pieces.length === 0) tensors.set(name, pieces);
        pieces.push(piece);
      }
    }
    for (const [name, pieces] of tensors) {
      const lacking = files.find((file) => !pieces.some((piece) => piece.file === file));
      if (lacking) throw new InputError(`${lacking.path}: tensor ${name}: missing, though other ranks hold it`);
      checkPieces(name, pieces);
    }
  } catch (error) {
    close();
    throw error;
  }
  const piecesFor = (name: string): Piece[] => {
    const pieces = tensors.get(name);
    if (!pieces) throw new InputError(`${dir}: the ${kind} shards have no tensor ${name}`);
    return pieces;
  };
  const readRaw = (name: string): TensorData => {
    const pieces = piecesFor(name);
    const { dtype, shape } = pieces[0]!;
    const bytes = new Uint8Array(elementCount(shape) * sizeOfDtype(dtype));
    const rowBytes = rowsOf(shape) === 0 ? 0 : bytes.byteLength / rowsOf(shape);
    for (const { file, offset, rows } of pieces)
      if (rows > 0) file.readInto(name, bytes.subarray(offset * rowBytes, (offset + rows) * rowBytes));
    return { dtype, shape, data: viewAs(dtype, bytes) };
  };
  return {
    worldSize,
    names: [...tensors.keys()],
    shape: (name) => piecesFor(name)[0]!.shape,
    dtype: (name) => piecesFor(name)[0]!.dtype,
    readRaw,
    ranged: (name) => {
      const ordered = [...piecesFor(name)].sort((a, b) => a.offset - b.offset || a.rows - b.rows);
      const joined = joinTensors(
        ordered.map(({ file }) => file.ranged(name)),
        0,
      );
      return reshapeTensor(joined, ordered[0]!.shape);
    },
    read: (name) => {
      const values = asFloat32(readRaw(name));
      if (values) return values;
      throw new InputError(`${piecesFor(name)[0]!.file.path}: tensor ${name}: not a float`);
    },
    close,
  };
}

/** fsdp_config.json, which names the world size. */
export function writeFsdpConfig(dir: string, worldSize: number): void {
  writeFileSync(join(dir, FSDP_CONFIG), `${JSON.stringify({ FSDP_version: 2, world_size: worldSize }, null, 2)}\n`);
}
