/** @file safetensors files: tensors read one by one from their place, written one by one to theirs. */
import { closeSync, fstatSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  explainWriteError,
  InputError,
  InvariantError,
  invariant,
  syncDirectory,
  temporaryName,
} from '@frame-thinker/core';
import { type Dtype, sizeOfDtype, type TensorData, viewAs } from './dtype.ts';
import type { RangedTensor } from './ranged-tensor.ts';
import { openForReading, readFully } from './regular-file.ts';
import {
  headerLength,
  layoutSafetensors,
  type Metadata,
  parseHeader,
  type SafetensorsHeader,
  type TensorEntry,
} from './safetensors.ts';

export interface SafetensorsFile {
  readonly path: string;
  readonly header: SafetensorsHeader;
  /** @throws InputError when the file has no such tensor. */
  entry(name: string): TensorEntry;
  /** A tensor in memory of its own. */
  read(name: string): TensorData;
  /** Reads all bytes of a tensor into `target`, which must be as long. */
  readInto(name: string, target: Uint8Array): void;
  /** A tensor that is read by ranges. */
  ranged(name: string): RangedTensor;
  close(): void;
}

/** Opens a file and checks its header. @throws InputError naming the file and the tensor. */
export function openSafetensors(path: string): SafetensorsFile {
  const handle = openForReading(path);
  try {
    const size = fstatSync(handle).size;
    const first = new Uint8Array(Math.min(8, size));
    readFully(handle, first, 0, path);
    const json = new Uint8Array(headerLength(first, size, path));
    readFully(handle, json, 8, path);
    const header = parseHeader(json, size, path);
    const entry = (name: string): TensorEntry => {
      const found = header.entries.get(name);
      if (!found) throw new InputError(`${path}: has no tensor ${name}`);
      return found;
    };
    const readInto = (name: string, target: Uint8Array): void => {
      const { begin, end } = entry(name);
      invariant(target.byteLength === end - begin, `${path}: tensor ${name} has ${end - begin} bytes`);
      readFully(handle, target, header.dataStart + begin, `${path}: tensor ${name}`);
    };
    const read = (name: string): TensorData => {
      const { dtype, shape, begin, end } = entry(name);
      const bytes = new Uint8Array(end - begin);
      readInto(name, bytes);
      return { dtype, shape, data: viewAs(dtype, bytes) };
    };
    const ranged = (name: string): RangedTensor => {
      const { dtype, shape, begin, end } = entry(name);
      return {
        dtype,
        shape,
        fingerprint: null,
        read: (first, target) => {
          const at = begin + first * sizeOfDtype(dtype);
          invariant(at + target.byteLength <= end, `${path}: tensor ${name}: read past its end`);
          readFully(handle, target, header.dataStart + at, `${path}: tensor ${name}`);
        },
      };
    };
    return { path, header, entry, read, readInto, ranged, close: () => closeSync(handle) };
  } catch (error) {
    closeSync(handle);
    throw error;
  }
}

export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

export interface SafetensorsWriter {
  /**
   * Writes bytes of a tensor, each once; tensors and their parts may be filled in any order. `at`: byte within the tensor,
   * behind what was written so far where it is left out.
   */
  write(name: string, bytes: Uint8Array, at?: number): void;
  /** Checks that every tensor is complete and gives the file its name. */
  finish(): void;
  /** Brings what was written so far to the disk, beside further writing. @throws InputError where the disk fails. */
  flush(): Promise<void>;
  /** Gives up: the temporary file is removed. */
  abort(): void;
}

/**
 * Creates a file whose tensors are written one by one. Until `finish` it has a temporary name.
 * @throws InputError when the disk is full or the place is not writable.
 */
export function createSafetensors(options: {
  path: string;
  tensors: Iterable<TensorSpec>;
  metadata?: Metadata;
  /** False inside a folder that is synced as a whole later. Default true. */
  sync?: boolean;
}): SafetensorsWriter {
  const { path, tensors, metadata, sync = true } = options;
  const { header, entries } = layoutSafetensors(tensors, metadata);
  const left = new Map(
    entries.map(({ name, begin, end }) => [name, { begin: header.byteLength + begin, bytes: end - begin, written: 0 }]),
  );
  const temporary = temporaryName(path);
  let handle: number | undefined;
  const abort = () => {
    if (handle === undefined) return;
    closeSync(handle);
    handle = undefined;
    rmSync(temporary, { force: true });
  };
  const guarded = (action: () => void) => {
    try {
      action();
    } catch (error) {
      abort();
      throw explainWriteError(error, path);
    }
  };
  const put = (bytes: Uint8Array, position: number) => {
    invariant(handle !== undefined, `${path}: written to after it was closed`);
    for (let at = 0; at < bytes.byteLength; )
      at += writeSync(handle, bytes, at, Math.min(bytes.byteLength - at, 1 << 30), position + at);
  };
  guarded(() => {
    mkdirSync(dirname(path), { recursive: true });
    handle = openSync(temporary, 'wx');
    put(header, 0);
  });
  return {
    write: (name, bytes, at) =>
      guarded(() => {
        const place = left.get(name);
        const from = at ?? place?.written ?? 0;
        if (!place || from + bytes.byteLength > place.bytes || place.written + bytes.byteLength > place.bytes)
          throw new InvariantError(`${path}: tensor ${name} has no room for ${bytes.byteLength} bytes`);
        put(bytes, place.begin + from);
        place.written += bytes.byteLength;
      }),
    finish: () =>
      guarded(() => {
        for (const [name, { bytes, written }] of left)
          invariant(written === bytes, `${path}: tensor ${name} lacks ${bytes - written} bytes`);
        invariant(handle !== undefined, `${path}: finished twice`);
        if (sync) fsyncSync(handle);
        closeSync(handle);
        handle = undefined;
        renameSync(temporary, path);
        if (sync) syncDirectory(dirname(path));
      }),
    flush: async () => {
      try {
        // A handle of its own: the other may be closed before this one is through.
        const own = await open(temporary, 'r');
        try {
          await own.datasync();
        } finally {
          await own.close();
        }
      } catch (error) {
        throw explainWriteError(error, path);
      }
    },
    abort,
  };
}
