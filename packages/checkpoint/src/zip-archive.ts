/**
 * @file Reads zip archives of stored (not compressed) entries through their central directory, zip64 included, and checks
 * CRC-32 on the way. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 */
import { closeSync, fstatSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { InputError, InvariantError } from '@frame-thinker/core';
import { withPiece } from './piece-memory.ts';
import { openForReading, readFully } from './regular-file.ts';

export interface ZipEntry {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly crc: number;
  /** File offset of its local header. */
  readonly headerStart: number;
  /** File offset of its first byte. */
  readonly dataStart: number;
}

/** An entry that is read by ranges. Bytes read in order are read from the file once; what is left out is read by `verify`. */
export interface ZipEntryReader {
  readonly entry: ZipEntry;
  /** Whether anything was read. */
  readonly touched: boolean;
  /** @throws InputError when the range leaves the entry or the file ends before. */
  read(begin: number, target: Uint8Array): void;
  /** Reads what no range touched yet and compares the CRC-32. @throws InputError naming file and entry. */
  verify(): void;
}

export interface ZipArchive {
  readonly path: string;
  /** Bytes of the file. */
  readonly size: number;
  readonly entries: ReadonlyMap<string, ZipEntry>;
  /** All bytes of an entry, checked. @throws InputError when it is missing, larger than `limit`, or its CRC is wrong. */
  readAll(name: string, limit: number): Uint8Array;
  reader(name: string): ZipEntryReader;
  close(): void;
}

const END = 0x06054b50;
const END_64 = 0x06064b50;
const LOCATOR_64 = 0x07064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const FULL_16 = 0xffff;
const FULL_32 = 0xffffffff;
const MAX_DIRECTORY = 64 * 2 ** 20;

/** The bytes [begin, begin + length) as a view. */
type ReadView = (begin: number, length: number, what: string) => DataView;

interface Directory {
  begin: number;
  bytes: number;
  entries: number;
}

const u64 = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));

function findEnd(read: ReadView, size: number, fail: (what: string) => InputError): { view: DataView; at: number } {
  const length = Math.min(size, 22 + FULL_16);
  const tail = read(size - length, length, 'end');
  for (let at = length - 22; at >= 0; at--)
    if (tail.getUint32(at, true) === END && tail.getUint16(at + 20, true) === length - at - 22)
      return { view: new DataView(tail.buffer, tail.byteOffset + at, 22), at: size - length + at };
  throw fail('no end of central directory: truncated, or not a zip archive');
}

function findDirectory(read: ReadView, size: number, fail: (what: string) => InputError): Directory {
  const { view, at } = findEnd(read, size, fail);
  const directory = {
    entries: view.getUint16(10, true),
    bytes: view.getUint32(12, true),
    begin: view.getUint32(16, true),
  };
  if (view.getUint16(4, true) % FULL_16 !== 0 || view.getUint16(8, true) !== directory.entries)
    throw fail('an archive of several disks');
  let end = at;
  const locator = at >= 20 ? read(at - 20, 20, 'zip64 locator') : null;
  if (locator?.getUint32(0, true) === LOCATOR_64) {
    const begin = u64(locator, 8);
    if (begin > at - 76) throw fail('damaged: the zip64 end of directory lies beyond the file');
    const view64 = read(begin, 56, 'zip64 end');
    if (view64.getUint32(0, true) !== END_64) throw fail('damaged: no zip64 end of directory where the locator says');
    const wide = { entries: u64(view64, 32), bytes: u64(view64, 40), begin: u64(view64, 48) };
    const agree = (narrow: number, full: number, value: number) => narrow === full || narrow === value;
    if (
      !agree(directory.entries, FULL_16, wide.entries) ||
      !agree(directory.bytes, FULL_32, wide.bytes) ||
      !agree(directory.begin, FULL_32, wide.begin)
    )
      throw fail('damaged: the two ends of directory differ');
    Object.assign(directory, wide);
    end = begin;
  }
  if (directory.begin + directory.bytes > end) throw fail('damaged: the central directory does not fit the file');
  if (directory.bytes > MAX_DIRECTORY) throw fail(`a central directory of ${directory.bytes} bytes`);
  return directory;
}

/** Names that could leave a folder, or that two readers could understand differently, are refused. */
function isSafeName(name: string): boolean {
  return name.split('/').every((part) => part !== '' && part !== '.' && part !== '..') && !/[\\\0:]/.test(name);
}

interface CentralEntry {
  name: string;
  size: number;
  crc: number;
  headerStart: number;
}

/** Sizes and offset that do not fit 32 bits, from the zip64 extra field. */
function widen(
  extra: DataView,
  narrow: { size: number; stored: number; offset: number },
  fail: (what: string) => InputError,
): { size: number; stored: number; offset: number } {
  const wide = { ...narrow };
  const missing = (['size', 'stored', 'offset'] as const).filter((key) => narrow[key] === FULL_32);
  if (missing.length === 0) return wide;
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const length = extra.getUint16(at + 2, true);
    if (extra.getUint16(at, true) === 1 && at + 4 + length <= extra.byteLength && length >= 8 * missing.length) {
      for (const [i, key] of missing.entries()) wide[key] = u64(extra, at + 4 + 8 * i);
      return wide;
    }
    at += 4 + length;
  }
  throw fail('damaged: a zip64 size is missing');
}

function parseDirectory(view: DataView, count: number, fail: (what: string) => InputError): CentralEntry[] {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const entries: CentralEntry[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > view.byteLength || view.getUint32(at, true) !== CENTRAL)
      throw fail(`damaged: the central directory breaks off after ${i} of ${count} entries`);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((o) => view.getUint16(at + o, true)) as [
      number,
      number,
      number,
    ];
    const end = at + 46 + nameLength + extraLength + commentLength;
    if (end > view.byteLength) throw fail('damaged: an entry of the central directory is cut off');
    let name: string;
    try {
      name = decoder.decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, nameLength));
    } catch {
      throw fail('damaged: an entry whose name is not UTF-8');
    }
    const shown = JSON.stringify(name);
    if (!isSafeName(name)) throw fail(`entry ${shown}: a name that could leave its folder; refused`);
    if (view.getUint16(at + 8, true) & 1) throw fail(`entry ${shown}: encrypted`);
    const method = view.getUint16(at + 10, true);
    if (method !== 0)
      throw fail(
        `entry ${shown}: compressed (method ${method}); torch.save stores, so write the archive again with it`,
      );
    const { size, stored, offset } = widen(
      new DataView(view.buffer, view.byteOffset + at + 46 + nameLength, extraLength),
      {
        stored: view.getUint32(at + 20, true),
        size: view.getUint32(at + 24, true),
        offset: view.getUint32(at + 42, true),
      },
      (what) => fail(`entry ${shown}: ${what}`),
    );
    if (size !== stored) throw fail(`entry ${shown}: damaged: ${stored} bytes are stored of ${size}`);
    entries.push({ name, size, crc: view.getUint32(at + 16, true), headerStart: offset });
    at = end;
  }
  if (at !== view.byteLength) throw fail('damaged: bytes follow the last entry of the central directory');
  return entries;
}

/** Reads the local headers: only they say where the data begin. */
function locate(central: CentralEntry[], read: ReadView, end: number, fail: (what: string) => InputError): ZipEntry[] {
  let free = 0;
  return [...central]
    .sort((a, b) => a.headerStart - b.headerStart)
    .map((entry) => {
      const bad = (what: string) => fail(`entry ${JSON.stringify(entry.name)}: ${what}`);
      if (entry.headerStart < free) throw bad('overlaps the entry before it');
      if (entry.headerStart + 30 > end) throw bad('truncated: lies beyond the end of the data');
      const header = read(entry.headerStart, 30, 'local header');
      const nameLength = header.getUint16(26, true);
      const dataStart = entry.headerStart + 30 + nameLength + header.getUint16(28, true);
      if (header.getUint32(0, true) !== LOCAL) throw bad('damaged: no local header where the directory says');
      if (dataStart + entry.size > end) throw bad('truncated: lies beyond the end of the data');
      const local = read(entry.headerStart + 30, nameLength, 'local name');
      if (!Buffer.from(entry.name).equals(new Uint8Array(local.buffer, local.byteOffset, nameLength)))
        throw bad('damaged: its local header has another name');
      if (header.getUint16(8, true) !== 0) throw bad('damaged: its local header says that it is compressed');
      free = dataStart + entry.size;
      return { ...entry, dataStart };
    });
}

/** A file may have a hundred thousand entries, so each reader is small. */
class StoredEntryReader implements ZipEntryReader {
  readonly entry: ZipEntry;
  touched = false;
  readonly #handle: number;
  readonly #path: string;
  #position = 0;
  #crc = 0;

  constructor(handle: number, path: string, entry: ZipEntry) {
    this.#handle = handle;
    this.#path = path;
    this.entry = entry;
  }
  get #what(): string {
    return `${this.#path}: ${this.entry.name}`;
  }
  /** Adds the bytes up to `end` to the CRC. */
  #scan(end: number): void {
    if (end <= this.#position) return;
    withPiece(0, (buffer) => {
      while (this.#position < end) {
        const chunk = buffer.subarray(0, Math.min(buffer.byteLength, end - this.#position));
        readFully(this.#handle, chunk, this.entry.dataStart + this.#position, this.#what);
        this.#crc = crc32(chunk, this.#crc);
        this.#position += chunk.byteLength;
      }
    });
  }
  read(begin: number, target: Uint8Array): void {
    const { size, dataStart } = this.entry;
    this.touched = true;
    const end = begin + target.byteLength;
    if (begin < 0 || end > size)
      throw new InputError(`${this.#what}: too short: bytes up to ${end} are needed, it has ${size}`);
    this.#scan(begin);
    readFully(this.#handle, target, dataStart + begin, this.#what);
    if (end > this.#position) {
      this.#crc = crc32(target.subarray(this.#position - begin), this.#crc);
      this.#position = end;
    }
  }
  verify(): void {
    this.#scan(this.entry.size);
    const { crc } = this.entry;
    if (this.#crc !== crc)
      throw new InputError(
        `${this.#what}: damaged: its CRC-32 is ${this.#crc.toString(16)}, the archive says ${crc.toString(16)}; use another copy`,
      );
  }
}

/**
 * Opens an archive and checks its structure: the central directory, every local header, no overlap, no entry twice.
 * @throws InputError naming the file and the entry.
 */
export function openZip(path: string): ZipArchive {
  const handle = openForReading(path);
  const fail = (what: string) => new InputError(`${path}: ${what}`);
  try {
    const { size } = fstatSync(handle);
    const read: ReadView = (begin, length, what) => {
      const bytes = new Uint8Array(length);
      readFully(handle, bytes, begin, `${path}: ${what}`);
      return new DataView(bytes.buffer);
    };
    const directory = findDirectory(read, size, fail);
    const view = read(directory.begin, directory.bytes, 'central directory');
    const entries = new Map<string, ZipEntry>();
    for (const entry of locate(parseDirectory(view, directory.entries, fail), read, directory.begin, fail)) {
      if (entries.has(entry.name)) throw fail(`entry ${JSON.stringify(entry.name)} is there twice; refused`);
      entries.set(entry.name, entry);
    }
    const reader = (name: string): ZipEntryReader => {
      const entry = entries.get(name);
      if (!entry) throw new InvariantError(`${path}: has no entry ${name}`);
      return new StoredEntryReader(handle, path, entry);
    };
    return {
      path,
      size,
      entries,
      reader,
      readAll: (name, limit) => {
        const entry = entries.get(name);
        if (!entry) throw fail(`has no entry ${name}`);
        if (entry.size > limit) throw fail(`entry ${name}: ${entry.size} bytes, more than ${limit}`);
        const bytes = new Uint8Array(entry.size);
        const whole = reader(name);
        whole.read(0, bytes);
        whole.verify();
        return bytes;
      },
      close: () => closeSync(handle),
    };
  } catch (error) {
    closeSync(handle);
    throw error;
  }
}
