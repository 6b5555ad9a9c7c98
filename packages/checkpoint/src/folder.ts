/** @file Whole folders written atomically: filled under a temporary name, synced, renamed. */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { explainWriteError, InputError, syncDirectory, temporaryName } from '@frame-thinker/core';

/** Syncs every file and folder below `dir`. */
export function syncTree(dir: string): void {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) syncTree(path);
    else if (entry.isFile()) {
      const handle = openSync(path, 'r');
      try {
        fsyncSync(handle);
      } finally {
        closeSync(handle);
      }
    }
  }
  syncDirectory(dir);
}

/** Paths of all files below `dir`, relative, sorted, with `/` between. */
export function listFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((path) => statSync(join(dir, path)).isFile())
    .map((path) => path.replaceAll('\\', '/'))
    .sort();
}

const replacedName = (target: string) => join(dirname(target), `.${basename(target)}.replaced`);

/**
 * Two renames replace a folder that exists. Where a kill came between them, the old folder gets its name back here.
 * @returns whether `target` exists.
 */
export function recoverFolder(target: string): boolean {
  if (existsSync(target)) return true;
  if (!existsSync(replacedName(target))) return false;
  renameSync(replacedName(target), target);
  return true;
}

/**
 * Writes a folder that is either whole or not there. One that exists stays until the new one is complete.
 * @throws InputError when the disk is full or the place is not writable; the temporary folder is removed.
 */
export async function writeFolderAtomic<T>(target: string, fill: (temporary: string) => Promise<T>): Promise<T> {
  const temporary = temporaryName(target);
  try {
    mkdirSync(temporary, { recursive: true });
  } catch (error) {
    throw explainWriteError(error, target);
  }
  try {
    const result = await fill(temporary);
    syncTree(temporary);
    if (recoverFolder(target)) {
      rmSync(replacedName(target), { recursive: true, force: true });
      renameSync(target, replacedName(target));
    }
    renameSync(temporary, target);
    syncDirectory(dirname(target));
    rmSync(replacedName(target), { recursive: true, force: true });
    return result;
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    // The name that a person knows, not the one that is gone.
    if (error instanceof InputError)
      throw new InputError(error.message.replaceAll(temporary, target), { cause: error });
    throw explainWriteError(error, target);
  }
}

/** Removes a folder so that no reader ever finds half of it under its name. */
export function removeFolder(dir: string): void {
  const temporary = temporaryName(dir);
  renameSync(dir, temporary);
  rmSync(temporary, { recursive: true, force: true });
}

/** Whether a process of this pid is there, whoever's. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Removes what a killed process left in `parent` for the names that `belongs` takes: temporary files and folders, and
 * replaced folders whose successor is there.
 * @returns their paths.
 */
export function removeStale(parent: string, belongs: (name: string) => boolean): string[] {
  if (!statSync(parent, { throwIfNoEntry: false })?.isDirectory()) return [];
  const stale = readdirSync(parent).filter((entry) => {
    const [, old = ''] = /^\.(.+)\.replaced$/.exec(entry) ?? [];
    if (old !== '') return belongs(old) && existsSync(join(parent, old));
    const [, name = '', pid = ''] = /^\.(.+)\.(\d+)\.[0-9a-f]{8}\.tmp$/.exec(entry) ?? [];
    // A live process may be writing it. A folder under our own pid is an earlier process's, whose pid we were given.
    return name !== '' && belongs(name) && (Number(pid) === process.pid || !isAlive(Number(pid)));
  });
  for (const entry of stale) rmSync(join(parent, entry), { recursive: true, force: true });
  return stale.map((entry) => join(parent, entry));
}
