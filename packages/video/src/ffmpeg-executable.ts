/** @file Finding the ffmpeg executable. Command lines are built and run by fluent-ffmpeg. */
import { execFile } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { InputError, messageOf } from '@frame-thinker/core';
import type ffmpeg from 'fluent-ffmpeg';

export interface FfmpegExecutable {
  path: string;
  source: 'explicit' | 'ffmpeg-static' | 'system';
}

/**
 * The ffmpeg executable: the explicit path, else ffmpeg-static's where its download was made, else the first in PATH.
 * @throws InputError when an explicit path is given and is no executable file.
 */
export async function findFfmpeg(explicit?: string): Promise<FfmpegExecutable | undefined> {
  if (explicit !== undefined) {
    if (isExecutable(explicit)) return { path: explicit, source: 'explicit' };
    throw new InputError(`${explicit}: is no executable file; give the path of ffmpeg`);
  }
  const packaged = await staticPath();
  if (packaged && isExecutable(packaged)) return { path: packaged, source: 'ffmpeg-static' };
  const name = process.platform === 'win32' ? 'ffmpeg.exe' : 'ffmpeg';
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    if (folder && isExecutable(path)) return { path, source: 'system' };
  }
  return undefined;
}

/** @throws InputError when there is no executable. */
export async function requireFfmpeg(explicit?: string): Promise<FfmpegExecutable> {
  const found = await findFfmpeg(explicit);
  if (found) return found;
  throw new InputError('no ffmpeg executable found: install ffmpeg, give its path, or use node-av (the default)');
}

/** The package is an optional dependency, and names a file that is only there if its install script ran. */
async function staticPath(): Promise<string | null> {
  try {
    const { default: path } = await import('ffmpeg-static');
    return path as unknown as string | null;
  } catch {
    return null;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

const versions = new Map<string, Promise<readonly [major: number, minor: number]>>();

/** Option that passes frames on as they are: its name changed in FFmpeg 5.1. */
export async function passthroughOption(path: string): Promise<string> {
  const version =
    versions.get(path) ??
    promisify(execFile)(path, ['-version']).then(({ stdout }) => {
      const match = /version n?(\d+)\.(\d+)/.exec(stdout);
      // Builds from a revision carry no number; they are newer than 5.1.
      return match ? ([Number(match[1]), Number(match[2])] as const) : ([99, 0] as const);
    });
  versions.set(path, version);
  const [major, minor] = await version;
  return major > 5 || (major === 5 && minor >= 1) ? '-fps_mode' : '-vsync';
}

/** A command of this executable. fluent-ffmpeg is loaded by the first: most runs have none. */
export async function command(path: string): Promise<ffmpeg.FfmpegCommand> {
  const { default: create } = await import('fluent-ffmpeg');
  return create({ logger: undefined, stdoutLines: 20 }).setFfmpegPath(path);
}

/** Runs a command to its end; its standard output as bytes. @throws Error with ffmpeg's last words. */
export function collect(run: ffmpeg.FfmpegCommand): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    run.on('error', (error: unknown, _stdout: unknown, stderr: unknown) => {
      reject(new Error(`${messageOf(error)} ${String(stderr ?? '').slice(-300)}`.trim()));
    });
    const output = run.pipe();
    output.on('data', (chunk: Buffer) => chunks.push(chunk));
    output.on('error', reject);
    output.on('end', () => resolve(Buffer.concat(chunks)));
  });
}
