import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openVideo, probeVideo } from './reader.ts';
import { renderScene } from './render.ts';
import type { Scene } from './types.ts';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'video-render-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SCENE: Scene = {
  width: 96,
  height: 48,
  fps: 24,
  frames: 300,
  background: '#202428',
  boxes: [{ x: 10, y: 8, w: 24, h: 20, color: [224, 32, 32], start: 100, end: 147 }],
  distractor: { size: 8, y: 38, stride: 37 },
};

test('a box shows on its first and last frame and not beside them, in its colour', async () => {
  const path = join(folder, 'boundaries.mp4');
  const seen: number[] = [];
  const { bytes } = await renderScene(SCENE, path, { onProgress: (done) => seen.push(done) });
  expect(bytes).toBe(readFileSync(path).length);
  expect(seen.at(-1)).toBe(300);
  const reader = await openVideo(path, { cacheDir: join(folder, 'cache') });
  const frames = await reader.frames([99, 100, 147, 148]);
  const pixel = frames.map(({ data }) => [...data.subarray(3 * (18 * 96 + 22), 3 * (18 * 96 + 22) + 3)]);
  const near = (actual: number[], wanted: number[]): void => {
    for (const [c, value] of actual.entries()) expect(Math.abs(value - wanted[c]!)).toBeLessThan(24);
  };
  near(pixel[0]!, [32, 36, 40]);
  near(pixel[1]!, [224, 32, 32]);
  near(pixel[2]!, [224, 32, 32]);
  near(pixel[3]!, [32, 36, 40]);
  await reader.close();
});

test('the same scene gives the same bytes, with the index at the front', async () => {
  const hashes = [];
  for (const name of ['one.mp4', 'two.mp4']) {
    await renderScene(SCENE, join(folder, name));
    hashes.push(
      createHash('sha256')
        .update(readFileSync(join(folder, name)))
        .digest('hex'),
    );
  }
  expect(hashes[0]).toBe(hashes[1]);
  const bytes = readFileSync(join(folder, 'one.mp4'));
  expect(bytes.indexOf('moov')).toBeLessThan(bytes.indexOf('mdat'));
});

test('recipe and rate arrive in the file', async () => {
  const path = join(folder, 'recipe.mp4');
  await renderScene({ ...SCENE, fps: { num: 30000, den: 1001 }, frames: 90 }, path, { preset: 'veryfast', gop: 30 });
  expect(await probeVideo(path, { cacheDir: join(folder, 'cache') })).toMatchObject({
    fpsRational: { num: 30000, den: 1001 },
    totalFrames: 90,
    width: 96,
    height: 48,
  });
});

test('a scene or place that will not do is one clear InputError, and leaves nothing behind', async () => {
  const place = join(folder, 'nothing-left');
  mkdirSync(place);
  await expect(renderScene({ ...SCENE, width: 95 }, join(place, 'a.mp4'))).rejects.toThrow(InputError);
  await expect(renderScene({ ...SCENE, background: 'blue' }, join(place, 'a.mp4'))).rejects.toThrow(InputError);
  writeFileSync(join(folder, 'a-file'), '');
  await expect(renderScene(SCENE, join(folder, 'a-file', 'a.mp4'))).rejects.toThrow(InputError);
  expect(readdirSync(place)).toEqual([]);
});
