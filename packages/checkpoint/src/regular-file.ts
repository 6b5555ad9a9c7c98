/** @file Opens and reads files, and nothing else: a pipe, a socket or a device would hang, or have no end. */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, type Stats, statSync } from 'node:fs';
import { InputError, messageOf } from '@frame-thinker/core';

/** What it is, where it is no file. */
function otherKind(stats: Stats): string | null {
  if (stats.isFile()) return null;
  if (stats.isDirectory()) return 'a folder';
  if (stats.isFIFO()) return 'a named pipe';
  return stats.isSocket() ? 'a socket' : 'a device';
}

/** @throws InputError when the path, links followed, is there and is no regular file. */
export function refuseIrregular(path: string, stats: Stats): void {
  const kind = otherKind(stats);
  if (kind !== null) throw new InputError(`${path}: is ${kind}, not a file; refused`);
}

/**
 * Opens a file for reading; links are followed.
 * @throws InputError naming the path where it cannot be read or is no regular file.
 */
export function openForReading(path: string): number {
  let handle: number;
  try {
    const stats = statSync(path);
    refuseIrregular(path, stats);
    // A pipe that took the file's place since would be waited for.
    handle = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    throw error instanceof InputError ? error : new InputError(`${path}: cannot be read (${messageOf(error)})`);
  }
  try {
    refuseIrregular(path, fstatSync(handle));
    return handle;
  } catch (error) {
    closeSync(handle);
    throw error;
  }
}

/** A whole file of UTF-8. @throws InputError as `openForReading`. */
export function readTextFile(path: string): string {
  const handle = openForReading(path);
  try {
    return readFileSync(handle, 'utf8');
  } catch (error) {
    throw new InputError(`${path}: cannot be read (${messageOf(error)})`);
  } finally {
    closeSync(handle);
  }
}

/** Fills `target` from a position in the file. @throws InputError when the file ends before. */
export function readFully(handle: number, target: Uint8Array, position: number, what: string): void {
  for (let at = 0; at < target.byteLength; ) {
    const length = Math.min(target.byteLength - at, 1 << 30);
    let count: number;
    try {
      count = readSync(handle, target, at, length, position + at);
    } catch (error) {
      throw new InputError(`${what}: cannot be read (${messageOf(error)})`);
    }
    if (count === 0) throw new InputError(`${what}: truncated: the file ends at byte ${position + at}`);
    at += count;
  }
}
