import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FrameUnavailableError } from './errors.ts';
import { createFrameStore } from './frame-store.ts';
import { indexCodeBoxes, readIndexCode } from './index-code.ts';
import { frameRef, openVideo } from './reader.ts';
import { renderScene } from './render.ts';

const SIZE = { width: 120, height: 60 };
const FRAME_BYTES = SIZE.width * SIZE.height * 3;
let folder = '';
let videos: string[] = [];
const cacheDir = (): string => join(folder, 'cache');

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'video-store-'));
  videos = ['a.mp4', 'b.mp4', 'c.mp4'].map((name) => join(folder, name));
  const boxes = indexCodeBoxes({ width: 240, height: 120, frames: 100 });
  for (const path of videos)
    await renderScene({ width: 240, height: 120, fps: 24, frames: 100, background: '#000000', boxes }, path);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('frames come from the store the second time, and by size', async () => {
  const store = createFrameStore({ cacheDir: cacheDir() });
  const first = await store.get(videos[0]!, [5, 90, 5], SIZE);
  expect(first.map(readIndexCode)).toEqual([5, 90, 5]);
  expect(store.stats()).toMatchObject({ hits: 0, misses: 2, bytes: 2 * FRAME_BYTES, openReaders: 1 });
  const second = await store.get(videos[0]!, [90, 5], SIZE);
  expect(second[0]).toBe(first[1]);
  expect(store.stats()).toMatchObject({ hits: 2, misses: 2 });
  const [native] = await store.get(videos[0]!, [5]);
  expect([native!.width, native!.height]).toEqual([240, 120]);
  expect(store.stats()).toMatchObject({ hits: 2, misses: 3 });
  await store.close();
  expect(store.stats()).toMatchObject({ bytes: 0, openReaders: 0 });
});

test('concurrent calls decode a frame once, each gets its own frames, and readers stay bounded', async () => {
  const store = createFrameStore({ maxReaders: 1, cacheDir: cacheDir() });
  const calls = Array.from({ length: 24 }, (_, k) => ({ video: videos[k % 3]!, indices: [k, 50, 99 - k, 50] }));
  const answers = await Promise.all(calls.map(({ video, indices }) => store.get(video, indices, SIZE)));
  for (const [k, frames] of answers.entries()) expect(frames.map(readIndexCode)).toEqual(calls[k]!.indices);
  const distinct = new Set(calls.flatMap(({ video, indices }) => indices.map((i) => `${video}:${i}`))).size;
  expect(store.stats()).toMatchObject({ misses: distinct, hits: 24 * 3 - distinct, openReaders: 1 });
  await store.close();
});

test('memory stays bounded: the frame used longest ago goes first', async () => {
  const store = createFrameStore({ maxBytes: 3 * FRAME_BYTES, cacheDir: cacheDir() });
  await store.get(videos[0]!, [1, 2, 3], SIZE);
  await store.get(videos[0]!, [1], SIZE);
  await store.get(videos[0]!, [4], SIZE);
  expect(store.stats()).toMatchObject({ bytes: 3 * FRAME_BYTES, evictions: 1, hits: 1, misses: 4 });
  await store.get(videos[0]!, [1, 3, 4], SIZE);
  expect(store.stats()).toMatchObject({ hits: 4, misses: 4 });
  await store.get(videos[0]!, [2], SIZE);
  expect(store.stats()).toMatchObject({ misses: 5, evictions: 2 });
  await store.close();
});

test('a failure is the caller’s own, and the store goes on', async () => {
  const store = createFrameStore({ cacheDir: cacheDir() });
  const settled = await Promise.allSettled([
    store.get(videos[0]!, [7, 100], SIZE),
    store.get(videos[0]!, [7, 8], SIZE),
    store.get(join(folder, 'missing.mp4'), [0], SIZE),
    store.get(videos[0]!, [7], { width: 0, height: 10 }),
  ]);
  expect(settled.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'rejected', 'rejected']);
  const reasons = settled.flatMap((s) => (s.status === 'rejected' ? [s.reason] : []));
  expect(reasons[0]).toBeInstanceOf(FrameUnavailableError);
  expect(reasons[0]).toMatchObject({ video: videos[0], index: 100 });
  expect(reasons[1]).toBeInstanceOf(InputError);
  expect(reasons[2]).toBeInstanceOf(InputError);
  expect((await store.get(videos[0]!, [7], SIZE)).map(readIndexCode)).toEqual([7]);
  expect(store.stats().openReaders).toBe(1);
  await store.close();
});

test('a frame reference names the pixels', async () => {
  const reader = await openVideo(videos[0]!, { ...SIZE, cacheDir: cacheDir() });
  const [a, b, again] = await reader.frames([3, 4, 3]);
  await reader.close();
  expect(frameRef(a!, 'v.mp4')).toEqual({ video: 'v.mp4', index: 3, ...SIZE, sha256: frameRef(again!, '').sha256 });
  expect(frameRef(a!, '').sha256).toMatch(/^[0-9a-f]{64}$/);
  expect(frameRef(a!, '').sha256).not.toBe(frameRef(b!, '').sha256);
  expect(() => reader.frames([0])).toThrow(InputError);
});
