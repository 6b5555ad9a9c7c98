import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { findFfmpeg, passthroughOption, requireFfmpeg } from './ffmpeg-executable.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'video-ffmpeg-'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

const program = (name: string, output: string, mode = 0o755): string => {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\necho '${output}'\n`, { mode });
  return path;
};

/** Whether ffmpeg-static's install script could download its file here. */
function staticIsThere(): boolean {
  try {
    const path: unknown = createRequire(import.meta.url)('ffmpeg-static');
    return typeof path === 'string' && existsSync(path);
  } catch {
    return false;
  }
}

test('explicit path first, then ffmpeg-static, then PATH', async () => {
  const explicit = program('mine', '');
  expect(await findFfmpeg(explicit)).toEqual({ path: explicit, source: 'explicit' });
  const system = program('ffmpeg', '');
  vi.stubEnv('PATH', ['', join(folder, 'nothing-here'), folder].join(delimiter));
  if (staticIsThere()) expect(await findFfmpeg()).toMatchObject({ source: 'ffmpeg-static' });
  else {
    expect(await findFfmpeg()).toEqual({ path: system, source: 'system' });
    vi.stubEnv('PATH', join(folder, 'nothing-here'));
    expect(await findFfmpeg()).toBeUndefined();
    await expect(requireFfmpeg()).rejects.toThrow(InputError);
  }
});

test('an explicit path that is no program is bad input, not a reason to take another', async () => {
  await expect(findFfmpeg(join(folder, 'missing'))).rejects.toThrow(InputError);
  await expect(findFfmpeg(folder)).rejects.toThrow(InputError);
  await expect(findFfmpeg(program('text', '', 0o644))).rejects.toThrow(InputError);
});

test('the option that passes frames on has the name of the version', async () => {
  const nameOf = (version: string): Promise<string> =>
    passthroughOption(program(`ffmpeg-${version}`, `ffmpeg version ${version} Copyright (c) the FFmpeg developers`));
  expect(await nameOf('4.4.2-0ubuntu0.22.04.1')).toBe('-vsync');
  expect(await nameOf('5.0')).toBe('-vsync');
  expect(await nameOf('5.1.9-0+deb12u1')).toBe('-fps_mode');
  expect(await nameOf('n7.1')).toBe('-fps_mode');
  expect(await nameOf('N-118000-gabcdef')).toBe('-fps_mode');
});
