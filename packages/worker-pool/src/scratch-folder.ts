/**
 * @file Where the workers of this machine leave bulk data for each other: a folder in shared memory, or the temporary folder where
 * there is none or too little of it. The owner's pid and pid namespace are in its name. It goes with the pool or the process; after a SIGKILL the
 * workers remove it (removeScratch), and what they could not, the next start removes.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { isAlive } from '@frame-thinker/checkpoint';

/** Names, for workers, the folders to remove when their stdin ends. */
export const SCRATCH_VARIABLE = 'FT_SCRATCH';
const SHARED_MEMORY = '/dev/shm';
const NAME = /^frame-thinker-(\d+)-([0-9a-f]{4})[0-9a-f]{4}$/;

/** Of the namespace that pids are of: containers that share memory don't share pids. */
const namespace = ((): string => {
  try {
    return Number(/\d+/.exec(readlinkSync('/proc/self/ns/pid'))![0])
      .toString(16)
      .slice(-4)
      .padStart(4, '0');
  } catch {
    return '0000'; // A system without namespaces.
  }
})();
const newName = (): string => `frame-thinker-${process.pid}-${namespace}${randomBytes(2).toString('hex')}`;

/** Of this process. */
const own = new Set<ScratchFolder>();

/** Removes folders whose owner is dead, or had our pid before us. */
function removeStale(parent: string): void {
  let names: string[];
  try {
    names = readdirSync(parent);
  } catch {
    return; // A system without shared memory in files.
  }
  for (const name of names) {
    const [, digits, theirs] = NAME.exec(name) ?? [];
    if (theirs !== namespace || [...own].some((folder) => folder.name === name)) continue;
    const pid = Number(digits);
    if (pid !== process.pid && isAlive(pid)) continue;
    try {
      rmSync(join(parent, name), { recursive: true, force: true });
    } catch {
      // Another user's.
    }
  }
}

export interface ScratchOptions {
  /** Said once, when there is not enough shared memory. */
  warn?: ((line: string) => void) | undefined;
  /** In place of /dev/shm. */
  sharedMemory?: string;
}

export class ScratchFolder {
  readonly name: string;
  /** Where the folder may come to be. */
  readonly candidates: readonly string[];
  readonly #options: ScratchOptions;
  #path: string | undefined;
  #needed = 0;

  constructor(options: ScratchOptions = {}) {
    this.#options = options;
    this.name = newName();
    const parents = [options.sharedMemory ?? SHARED_MEMORY, tmpdir()];
    for (const parent of parents) removeStale(parent);
    this.candidates = parents.map((parent) => join(parent, this.name));
    if (own.size === 0) process.on('exit', removeAll);
    own.add(this);
  }

  /** What a worker's environment says of it. */
  get environment(): Record<string, string> {
    return { [SCRATCH_VARIABLE]: this.candidates.join(delimiter) };
  }

  /** How much will be in it at once, told before the first file. */
  expect(bytes: number): void {
    this.#needed = bytes;
  }

  /** A file's or folder's path in it. Makes the folder when it is first asked for. */
  file(name: string): string {
    this.#path ??= this.#make();
    return join(this.#path, name);
  }

  #make(): string {
    const [shared, temporary] = this.candidates as [string, string];
    const why = this.#tryShared(shared);
    if (why === undefined) return shared;
    this.#options.warn?.(`${why}: the workers' bulk data go to ${temporary}`);
    mkdirSync(temporary, { mode: 0o700 });
    return temporary;
  }

  /** Why the folder can't be in shared memory. */
  #tryShared(path: string): string | undefined {
    const parent = join(path, '..');
    try {
      const { bavail, bsize } = statfsSync(parent);
      const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
      if (bavail * bsize < this.#needed)
        return `${parent} has ${mib(bavail * bsize)} free, ${mib(this.#needed)} are needed`;
      mkdirSync(path, { mode: 0o700 });
      return undefined;
    } catch (error) {
      return `${parent} can't be used (${(error as NodeJS.ErrnoException).code})`;
    }
  }

  remove(): void {
    for (const path of this.candidates) rmSync(path, { recursive: true, force: true });
    own.delete(this);
    if (own.size === 0) process.off('exit', removeAll);
  }
}

function removeAll(): void {
  for (const folder of own) folder.remove();
}

/** What the starter named, as far as it is named as scratch folders are. */
const scratchPaths = (): string[] =>
  (process.env[SCRATCH_VARIABLE] ?? '').split(delimiter).filter((path) => NAME.test(basename(path)));

/**
 * A folder of a worker for files of its own, which goes when its stdin ends: in the scratch folder that its starter named, else in one that
 * this process names itself.
 */
export function workerFolder(kind: string): string {
  const named = process.env[SCRATCH_VARIABLE];
  const own = join(tmpdir(), newName());
  if (!named) process.env[SCRATCH_VARIABLE] = own;
  const parent = named?.split(delimiter).at(-1) || own;
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  return mkdtempSync(join(parent, `${kind}-`));
}

/** A worker's part, when it starts: on a node of a cluster nobody else may look after what a dead node left. */
export function removeStaleScratch(): void {
  for (const path of scratchPaths()) removeStale(dirname(path));
}

/** A worker's part: its stdin ended, so the pool is closed or its process dead. */
export function removeScratch(): void {
  for (const path of scratchPaths()) rmSync(path, { recursive: true, force: true, maxRetries: 3 });
}
