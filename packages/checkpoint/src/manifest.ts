/** @file manifest.json: size and sha256 of every file of a checkpoint, and a CRC-32 of every tensor to tell which broke. */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fstatSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { crc32 } from 'node:zlib';
import { InputError } from '@frame-thinker/core';
import { listFiles } from './folder.ts';
import { readJsonFile } from './hf-folder.ts';
import { openForReading, readFully } from './regular-file.ts';
import { openSafetensors } from './safetensors-file.ts';

export const MANIFEST = 'manifest.json';

export interface FileRecord {
  bytes: number;
  sha256: string;
  /** CRC-32 of each tensor's bytes (safetensors files). */
  tensors?: Record<string, number>;
}

export interface Manifest {
  version: 1;
  step: number;
  files: Record<string, FileRecord>;
}

const CHUNK = 1 << 22;

/** Passes bytes [begin, end) of an open file on, in chunks. */
function scan(handle: number, begin: number, end: number, path: string, visit: (chunk: Uint8Array) => void): void {
  const buffer = new Uint8Array(Math.min(CHUNK, end - begin));
  for (let at = begin; at < end; ) {
    const chunk = buffer.subarray(0, Math.min(CHUNK, end - at));
    readFully(handle, chunk, at, path);
    visit(chunk);
    at += chunk.byteLength;
  }
}

function recordFile(path: string): FileRecord {
  const hash = createHash('sha256');
  const tensors: [string, number][] = [];
  const header = path.endsWith('.safetensors') ? openHeader(path) : null;
  const handle = openForReading(path);
  try {
    const bytes = fstatSync(handle).size;
    const hashed = (chunk: Uint8Array) => void hash.update(chunk);
    if (!header) scan(handle, 0, bytes, path, hashed);
    else {
      scan(handle, 0, header.dataStart, path, hashed);
      for (const { name, begin, end } of header.entries.values()) {
        let crc = 0;
        scan(handle, header.dataStart + begin, header.dataStart + end, path, (chunk) => {
          hash.update(chunk);
          crc = crc32(chunk, crc);
        });
        tensors.push([name, crc]);
      }
    }
    const sha256 = hash.digest('hex');
    return header ? { bytes, sha256, tensors: Object.fromEntries(tensors) } : { bytes, sha256 };
  } finally {
    closeSync(handle);
  }
}

function openHeader(path: string) {
  const file = openSafetensors(path);
  file.close();
  return file.header;
}

/** Records every file below `dir` in its manifest.json. Returns the bytes of all. */
export function writeManifest(dir: string, step: number): number {
  const files = listFiles(dir).filter((path) => path !== MANIFEST);
  const records = files.map((path) => [path, recordFile(join(dir, path))] as const);
  const manifest: Manifest = { version: 1, step, files: Object.fromEntries(records) };
  writeFileSync(join(dir, MANIFEST), `${JSON.stringify(manifest, null, 1)}\n`);
  return records.reduce((sum, [, { bytes }]) => sum + bytes, 0);
}

/** @throws InputError naming the manifest when it is missing or damaged. */
export function readManifest(dir: string): Manifest {
  const path = join(dir, MANIFEST);
  const manifest = readJsonFile(path) as Partial<Manifest> | null;
  if (manifest?.version !== 1) throw new InputError(`${path}: version ${manifest?.version} is not known (1 is)`);
  const records = Object.entries(manifest.files ?? {});
  if (
    !Number.isInteger(manifest.step) ||
    records.length === 0 ||
    records.some(([, r]) => typeof r?.sha256 !== 'string')
  )
    throw new InputError(`${path}: damaged: step or files are missing`);
  return manifest as Manifest;
}

/** A file of a checkpoint, which the manifest must name; others may lie beside them. */
const isPart = (path: string): boolean => path === 'data.json' || /^actor\/[^/]+$/.test(path);

/** @throws InputError naming the file, and the tensor where it can be told. */
export function checkRecord(path: string, expected: FileRecord, found: FileRecord): void {
  if (isDeepStrictEqual(found, expected)) return;
  const tensor = Object.entries(expected.tensors ?? {}).find(([name, crc]) => found.tensors?.[name] !== crc)?.[0];
  const where = tensor !== undefined ? `tensor ${tensor}: ` : expected.tensors ? 'header: ' : '';
  throw new InputError(
    `${path}: ${where}damaged: its content is not what ${MANIFEST} recorded (${found.bytes} of ${expected.bytes} bytes); use another checkpoint`,
  );
}

/**
 * Checks the files below `dir` that the manifest names (all, or those that `include` takes), and that it names them all.
 * @throws InputError naming the file, and the tensor where it can be told.
 */
export function verifyManifest(dir: string, include: (path: string) => boolean = () => true): Manifest {
  const manifest = readManifest(dir);
  for (const [relative, expected] of Object.entries(manifest.files)) {
    if (!include(relative)) continue;
    const path = join(dir, relative);
    if (!existsSync(path)) throw new InputError(`${path}: missing, though ${MANIFEST} names it`);
    checkRecord(path, expected, recordFile(path));
  }
  const unnamed = listFiles(dir).find((path) => isPart(path) && include(path) && !manifest.files[path]);
  if (unnamed)
    throw new InputError(`${join(dir, MANIFEST)}: damaged: it does not name ${unnamed}; use another checkpoint`);
  return manifest;
}
