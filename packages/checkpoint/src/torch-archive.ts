/** @file Files of torch.save: a zip archive of data.pkl, byteorder and one entry a storage. Storages are read by range. */
import { closeSync } from 'node:fs';
import { InputError, InvariantError } from '@frame-thinker/core';
import { PickleError, type PickleValue, readPickle } from '@frame-thinker/pickle';
import { openForReading, readFully } from './regular-file.ts';
import { TORCH_GLOBALS } from './torch-globals.ts';
import { openZip, type ZipEntryReader } from './zip-archive.ts';

/**
 * The description of a DTensor has 300 to 400 bytes and up to 35 containers: these are more than 100,000 DTensors in a file.
 * A pickle within these limits takes about 1 GB of memory while it is read.
 */
const MAX_PICKLE = 48 * 2 ** 20;
const MAX_CONTAINERS = 4_000_000;

export interface TorchArchive {
  readonly path: string;
  /** Bytes of the file. */
  readonly size: number;
  /** What data.pkl holds, as data. */
  readonly root: PickleValue;
  /** Gives the memory of `root` back, which is not asked for again; tensors that were understood stay. */
  forget(): void;
  /** @throws InputError when there is no such storage. */
  storage(key: string): ZipEntryReader;
  /** Compares the CRC-32 of every storage that was read; call it before what was read is used for good. */
  verify(): void;
  close(): void;
}

/** The format before zip archives begins with a pickled magic number. */
function refuseLegacy(path: string): void {
  const handle = openForReading(path);
  try {
    const head = new Uint8Array(4);
    readFully(handle, head, 0, path);
    if (head[0] === 0x80 && head[2] === 0x8a)
      throw new InputError(
        `${path}: torch's old format, not a zip archive; load it and save it again with torch.save's default format`,
      );
  } finally {
    closeSync(handle);
  }
}

/**
 * Opens a file of torch.save. Nothing in it is executed: data.pkl is read by an allow-list of exact names.
 * @throws InputError in one line naming the file: not such an archive, damaged, truncated, big endian, a pickle that uses
 * any other global (named with its byte offset).
 */
export function openTorchArchive(path: string): TorchArchive {
  refuseLegacy(path);
  const zip = openZip(path);
  try {
    const [first = ''] = zip.entries.keys();
    const top = first.slice(0, first.indexOf('/') + 1);
    for (const name of zip.entries.keys())
      if (top === '' || !name.startsWith(top))
        throw new InputError(`${path}: entry ${JSON.stringify(name)} lies outside the archive's folder; refused`);
    if (!zip.entries.has(`${top}data.pkl`)) throw new InputError(`${path}: no data.pkl: not a file of torch.save`);
    if (zip.entries.has(`${top}byteorder`)) {
      const order = Buffer.from(zip.readAll(`${top}byteorder`, 16))
        .toString('latin1')
        .trim();
      if (order !== 'little')
        throw new InputError(`${path}: byte order ${JSON.stringify(order)}; only little-endian files are read`);
    }
    const name = `${top}data.pkl`;
    let root: PickleValue | undefined = readPickle(zip.readAll(name, MAX_PICKLE), {
      source: `${path}: ${name}`,
      globals: TORCH_GLOBALS,
      maxBytes: MAX_PICKLE,
      maxContainers: MAX_CONTAINERS,
    });
    const readers = new Map<string, ZipEntryReader>();
    return {
      path,
      size: zip.size,
      get root() {
        if (root === undefined) throw new InvariantError(`${path}: its content was given back`);
        return root;
      },
      forget: () => {
        root = undefined;
      },
      storage: (key) => {
        const entry = `${top}data/${key}`;
        let reader = readers.get(entry);
        if (reader) return reader;
        if (!zip.entries.has(entry)) throw new InputError(`${path}: storage ${JSON.stringify(key)} is missing`);
        reader = zip.reader(entry);
        readers.set(entry, reader);
        return reader;
      },
      verify: () => {
        for (const reader of readers.values()) if (reader.touched) reader.verify();
      },
      close: zip.close,
    };
  } catch (error) {
    zip.close();
    throw error instanceof PickleError ? new InputError(error.message) : error;
  }
}
