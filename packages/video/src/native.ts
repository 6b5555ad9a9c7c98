/** @file The in-process FFmpeg, loaded on first use: importing this package for its types or its hashes must not map a 175 MB library. */
import { InputError, messageOf } from '@frame-thinker/core';

export type AvLibrary = typeof import('node-av/lib');
export type AvConstants = typeof import('node-av/constants');
export interface Av {
  lib: AvLibrary;
  constants: AvConstants;
}

/** AV_NOPTS_VALUE. */
export const NO_TIMESTAMP = -(2n ** 63n);

let loading: Promise<Av> | undefined;

/** @throws InputError where node-av has no binary for this platform. */
export function loadAv(): Promise<Av> {
  loading ??= Promise.all([import('node-av/lib'), import('node-av/constants')]).then(
    ([lib, constants]) => {
      // Broken files are answered with typed errors; FFmpeg's own lines on stderr would only repeat them.
      lib.Log.setLevel(constants.AV_LOG_FATAL);
      return { lib, constants };
    },
    (error: unknown) => {
      throw new InputError(
        `node-av cannot be loaded on ${process.platform}-${process.arch} (${messageOf(error).split('\n')[0]}): install dependencies again, with optional ones`,
      );
    },
  );
  return loading;
}

/** What FFmpeg calls an error code, for messages. */
export function describe({ lib }: Av, code: number): string {
  return lib.FFmpegError.strerror(code);
}

/** Throws an Error with the failing step's name when an FFmpeg call returned an error code. */
export function check(av: Av, code: number, step: string): number {
  if (code >= 0) return code;
  // The system's codes are negated errno values: give disk-full and the like their usual name.
  const names: Record<number, string> = { [-28]: 'ENOSPC', [-13]: 'EACCES', [-2]: 'ENOENT', [-122]: 'EDQUOT' };
  const error = new Error(`${step}: ${describe(av, code)}`);
  const name = names[code];
  if (name) (error as NodeJS.ErrnoException).code = name;
  throw error;
}

/** Lets timers and sockets run between pieces of synchronous work. */
export function createBreather(milliseconds: number): () => Promise<void> | undefined {
  let last = performance.now();
  return () => {
    if (performance.now() - last < milliseconds) return undefined;
    return new Promise<void>((resolve) => {
      setImmediate(() => {
        last = performance.now();
        resolve();
      });
    });
  };
}
