/** @file Atomic files: written to a temporary name, synced, renamed. What was there stays whole until the rename. */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { InputError, messageOf } from './errors.ts';

/** A name beside `path` that no reader looks for and that one process alone uses. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
}

/** Makes the rename of an entry in `directory` durable. */
export function syncDirectory(directory: string): void {
  const handle = openSync(directory, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** Turns ENOSPC and its kin into one clear line; anything else is thrown as it is. */
export function explainWriteError(error: unknown, path: string): Error {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new InputError(
      `${path}: no space left on the disk; nothing already written is lost. Free some space and run the same command again.`,
    );
  if (['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EISDIR', 'EEXIST', 'ENAMETOOLONG', 'EIO'].includes(code ?? ''))
    return new InputError(`${path}: cannot be written (${messageOf(error)})`);
  return error instanceof Error ? error : new Error(String(error));
}

/**
 * Writes chunks to `path` atomically and durably.
 * @throws InputError when the disk is full or the place not writable; the temporary file is removed.
 */
export function writeFileAtomic(path: string, chunks: Uint8Array | string | Iterable<Uint8Array>): void {
  const temporary = temporaryName(path);
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch (error) {
    throw explainWriteError(error, path);
  }
  try {
    const handle = openSync(temporary, 'wx');
    try {
      const parts =
        typeof chunks === 'string' ? [Buffer.from(chunks)] : chunks instanceof Uint8Array ? [chunks] : chunks;
      for (const part of parts) for (let at = 0; at < part.byteLength; ) at += writeSync(handle, part, at);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw explainWriteError(error, path);
  }
}
