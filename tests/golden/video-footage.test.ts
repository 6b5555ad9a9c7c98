/** Real footage: each frame, in random order, has the RGB bytes of PyAV's sequential decode; resized ones those of decord. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@frame-thinker/core';
import { findFfmpeg, frameRef, openVideo } from '@frame-thinker/video';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';

const python = process.env.FT_PYTHON ?? '.venv/bin/python';
const footage = process.env.FT_FOOTAGE ?? '.cache/footage';
const SIZE = { width: 448, height: 252 };
const VIDEOS = ['bikes.mp4', 'bigbuckbunny.mp4'];

let cacheDir = '';
beforeAll(() => {
  cacheDir = mkdtempSync(join(tmpdir(), 'video-footage-'));
});
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

/** Skips the test, by name and with the reason, unless FT_REQUIRE_ALL=1 forbids skipping. */
function missing(context: TestContext, reason: string): void {
  if (process.env.FT_REQUIRE_ALL === '1') throw new Error(`FT_REQUIRE_ALL=1, and ${reason}`);
  context.skip(reason);
}

interface Oracle {
  frames: string[];
  resized: string[] | null;
}

function oracle(path: string): Oracle | string {
  if (!existsSync(path)) return `${path} is not there (scripts/setup-footage.sh makes it)`;
  try {
    const script = join(import.meta.dirname, 'video-footage.py');
    const args = [script, path, String(SIZE.width), String(SIZE.height)];
    return JSON.parse(execFileSync(python, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })) as Oracle;
  } catch (error) {
    return `${python} with tests/requirements.txt installed is not there (${(error as Error).message.split('\n').filter(Boolean).at(-1)})`;
  }
}

for (const name of VIDEOS) {
  test(`${name}: same frames as PyAV's sequential decode, same bytes as decord's resize`, async (context) => {
    const path = join(footage, name);
    const expected = oracle(path);
    if (typeof expected === 'string') return missing(context, expected);
    const native = await openVideo(path, { cacheDir });
    expect(native.info.totalFrames).toBe(expected.frames.length);
    const order = createRng(1, 'shuffle').shuffled(expected.frames.map((_, i) => i));
    let right = 0;
    for (let at = 0; at < order.length; at += 44)
      for (const frame of await native.frames(order.slice(at, at + 44)))
        right += Number(frameRef(frame, name).sha256 === expected.frames[frame.index]);
    await native.close();
    console.log(`footage ${name}: ${right} of ${order.length} frames as in the sequential decode`);
    expect(right).toBe(order.length);

    if (expected.resized === null) return missing(context, 'decord is not installed: resized frames not compared');
    const resized = await openVideo(path, { ...SIZE, cacheDir });
    const frames = await resized.frames(expected.resized.map((_, k) => 7 * k));
    await resized.close();
    expect(frames.map((frame) => frameRef(frame, name).sha256)).toEqual(expected.resized);
  });

  test(`${name}: the ffmpeg executable gives the same frames`, async (context) => {
    const path = join(footage, name);
    if (!existsSync(path)) return missing(context, `${path} is not there (scripts/setup-footage.sh makes it)`);
    if (!(await findFfmpeg())) return missing(context, 'no ffmpeg executable found');
    const indices = [0, 1, 60, 61, 100, 131];
    const hashes = [];
    for (const decoder of ['node-av', 'ffmpeg'] as const) {
      const reader = await openVideo(path, { ...SIZE, decoder, cacheDir });
      hashes.push((await reader.frames(indices)).map((frame) => frameRef(frame, name).sha256));
      await reader.close();
    }
    expect(hashes[1]).toEqual(hashes[0]);
  });
}
