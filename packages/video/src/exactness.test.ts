import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FrameUnavailableError } from './errors.ts';
import { indexCodeBoxes, readIndexCode } from './index-code.ts';
import { openVideo, probeVideo } from './reader.ts';
import { renderScene } from './render.ts';
import { H264_VIDEOS, renderBurntIn, sampledIndices, truncated } from './testing/burnt-in-videos.ts';
import type { RgbFrame } from './types.ts';

let folder = '';
let cacheDir = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'video-exactness-'));
  cacheDir = join(folder, 'cache');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The picture before it was turned a quarter clockwise: (x, y) was shown at (height - 1 - y, x). */
function turnBack(shown: RgbFrame): RgbFrame {
  const [width, height] = [shown.height, shown.width];
  const data = new Uint8Array(shown.data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const from = 3 * (x * shown.width + height - 1 - y);
      data.set(shown.data.subarray(from, from + 3), 3 * (y * width + x));
    }
  return { index: shown.index, width, height, data };
}

const chunks = (values: number[], size: number): number[][] =>
  Array.from({ length: Math.ceil(values.length / size) }, (_, k) => values.slice(k * size, (k + 1) * size));

describe('the k-th presentable frame is what is read', () => {
  for (const video of H264_VIDEOS)
    test(video.name, async () => {
      const path = await renderBurntIn(folder, video);
      const first = video.first ?? 0;
      const info = await probeVideo(path, { cacheDir });
      expect(info.totalFrames).toBe(video.frames - first);
      expect(info.rotation).toBe(video.rotated ? 90 : 0);
      expect([info.width, info.height]).toEqual(video.rotated ? [120, 240] : [240, 120]);
      const reader = await openVideo(path, { cacheDir });
      const indices = sampledIndices(info.totalFrames, video.gop);
      // In one call, in calls of five, and one by one: continuing and seeking must agree.
      const calls = [indices, ...chunks(indices, 5), ...chunks(indices.slice(-12), 1)];
      for (const call of calls) {
        const codes = (await reader.frames(call)).map((frame) =>
          readIndexCode(video.rotated ? turnBack(frame) : frame),
        );
        expect(codes).toEqual(call.map((i) => i + first));
      }
      await reader.close();
    });
});

test('calls that overlap are served one after the other, also when packets are decoded on another thread', async () => {
  const size = { width: 640, height: 360 };
  const path = join(folder, 'large.mp4');
  const boxes = indexCodeBoxes({ ...size, frames: 60 });
  await renderScene({ ...size, fps: 24, frames: 60, background: '#202428', boxes }, path, { gop: 30 });
  const reader = await openVideo(path, { width: 160, height: 90, cacheDir });
  const calls = [[59, 1], [0], [30, 29], [2, 58]];
  const answers = await Promise.all(calls.map((indices) => reader.frames(indices)));
  expect(answers.map((frames) => frames.map(readIndexCode))).toEqual(calls);
  const last = reader.frames([31]);
  await reader.close();
  expect((await last).map(readIndexCode)).toEqual([31]);
});

describe('what cannot be read', () => {
  const codeOf = async (path: string, index: number): Promise<number> => {
    const reader = await openVideo(path, { cacheDir });
    try {
      return readIndexCode((await reader.frames([index]))[0]!);
    } finally {
      await reader.close();
    }
  };

  test('frames out of range are typed errors, and the reader goes on', async () => {
    const path = await renderBurntIn(folder, { ...H264_VIDEOS[0]!, file: 'range.mp4', frames: 50 });
    const reader = await openVideo(path, { cacheDir });
    for (const index of [-1, 50, 1e9, 0.5, Number.NaN])
      await expect(reader.frames([0, index])).rejects.toThrow(FrameUnavailableError);
    expect((await reader.frames([49, 3, 3])).map(readIndexCode)).toEqual([49, 3, 3]);
    await reader.close();
  });

  test('a truncated file gives its whole frames, exactly, and typed errors for the others', async () => {
    const whole = join(folder, 'whole.mp4');
    const video = { ...H264_VIDEOS[1]!, file: 'whole.mp4' };
    await renderBurntIn(folder, { ...video, options: { ...video.options, formatOptions: { movflags: '+faststart' } } });
    const path = truncated(whole, 0.5, join(folder, 'half.mp4'));
    const { totalFrames } = await probeVideo(path, { cacheDir });
    expect(totalFrames).toBeLessThanOrEqual(220);
    expect(await codeOf(path, 0)).toBe(0);
    expect(await codeOf(path, 60)).toBe(60);
    const reader = await openVideo(path, { cacheDir });
    await expect(reader.frames([219])).rejects.toThrow(FrameUnavailableError);
    expect((await reader.frames([60])).map(readIndexCode)).toEqual([60]);
    await reader.close();
  });

  test('no video at all: one clear InputError', async () => {
    const write = (name: string, bytes: Uint8Array | string): string => {
      const path = join(folder, name);
      writeFileSync(path, bytes);
      return path;
    };
    const plain = join(folder, 'noindex.mp4');
    await renderBurntIn(folder, { ...H264_VIDEOS[0]!, file: 'noindex.mp4' });
    const cases: [string, RegExp][] = [
      [join(folder, 'missing.mp4'), /no such video file/],
      [folder, /not a file/],
      [write('zero.mp4', ''), /is empty/],
      [write('text.mp4', 'not a video at all'.repeat(100)), /not a readable video/],
      [truncated(plain, 0.5, join(folder, 'nomoov.mp4')), /not a readable video/],
      [write('sound.wav', silence()), /no video stream/],
    ];
    for (const [path, message] of cases)
      for (const call of [probeVideo(path, { cacheDir }), openVideo(path, { cacheDir })]) {
        const error = await call.then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        expect(error, path).toBeInstanceOf(InputError);
        expect((error as Error).message).toMatch(message);
        expect((error as Error).message).not.toContain('\n');
      }
  });
});

test('the packet index is cached, and a damaged or outdated cache is made again', async () => {
  const path = join(folder, 'cached.mp4');
  const cache = join(folder, 'cache-of-its-own');
  const scene = { width: 64, height: 32, fps: { num: 24000, den: 1001 }, background: '#000000', boxes: [] } as const;
  await renderScene({ ...scene, frames: 30 }, path);
  const info = await probeVideo(path, { cacheDir: cache });
  expect(info).toMatchObject({ totalFrames: 30, fpsRational: { num: 24000, den: 1001 }, codec: 'h264' });
  expect(info.duration).toBeCloseTo((30 * 1001) / 24000, 9);
  const file = join(cache, readdirSync(cache)[0]!);
  const good = readFileSync(file, 'utf8');
  for (const bad of ['', '{', good.slice(0, -9), good.replace(/"pts":\[[^\]]*\]/, '"pts":[0,1]'), 'null']) {
    expect(bad).not.toBe(good);
    writeFileSync(file, bad);
    expect(await probeVideo(path, { cacheDir: cache })).toEqual(info);
    expect(readFileSync(file, 'utf8')).toBe(good);
  }
  await renderScene({ ...scene, frames: 31 }, path);
  expect((await probeVideo(path, { cacheDir: cache })).totalFrames).toBe(31);
  expect(readdirSync(cache)).toHaveLength(2);
  // A cache that cannot be written is done without.
  expect((await probeVideo(path, { cacheDir: join(file, 'below-a-file') })).totalFrames).toBe(31);
  expect(existsSync(join(file, 'below-a-file'))).toBe(false);
});

/** One second of silence as a WAV file. */
function silence(): Uint8Array {
  const header = Buffer.alloc(44 + 16000);
  header.write('RIFF', 0);
  header.writeUInt32LE(36 + 16000, 4);
  header.write('WAVEfmt ', 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(8000, 24);
  header.writeUInt32LE(16000, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write('data', 36);
  header.writeUInt32LE(16000, 40);
  return header;
}
