/** Frames by index against the number in their picture: other codecs, and the ffmpeg executable beside the in-process decoder. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  findFfmpeg,
  indexCodeBoxes,
  openVideo,
  probeVideo,
  readIndexCode,
  renderScene,
  UnsupportedByDecoderError,
} from '@frame-thinker/video';
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest';
import {
  H264_VIDEOS,
  OTHER_CODECS,
  renderBurntIn,
  sampledIndices,
} from '../../packages/video/src/testing/burnt-in-videos.ts';

let folder = '';
let cacheDir = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'video-golden-'));
  cacheDir = join(folder, 'cache');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Skips the test, by name and with the reason, where there is no executable; fails where nothing may be skipped. */
async function needFfmpeg(context: TestContext): Promise<{ path: string }> {
  const found = await findFfmpeg();
  if (found) return found;
  if (process.env.FT_REQUIRE_ALL === '1') throw new Error('FT_REQUIRE_ALL=1, and there is no ffmpeg executable');
  return context.skip('no ffmpeg executable found');
}

describe('the k-th presentable frame of other codecs', () => {
  for (const video of OTHER_CODECS)
    test(video.name, async () => {
      const path = await renderBurntIn(folder, video);
      const { totalFrames } = await probeVideo(path, { cacheDir });
      expect(totalFrames).toBe(video.frames);
      const reader = await openVideo(path, { cacheDir });
      const indices = sampledIndices(totalFrames, video.gop);
      const codes = [...(await reader.frames(indices))];
      for (const index of indices.slice(-12)) codes.push(...(await reader.frames([index])));
      // At the end the decoder still holds frames; going back must not count them.
      const backwards = [totalFrames - 2, ...indices.slice(0, 3)];
      for (const index of backwards) codes.push(...(await reader.frames([index])));
      await reader.close();
      const wanted = [...indices, ...indices.slice(-12), ...backwards];
      const wrong = wanted.filter((index, at) => readIndexCode(codes[at]!) !== index);
      console.log(`exactness ${video.file}: ${wrong.length} wrong of ${wanted.length}`);
      expect(wrong).toEqual([]);
    });
});

describe('the ffmpeg executable gives the same pixels, or refuses', () => {
  for (const video of [...H264_VIDEOS, ...OTHER_CODECS])
    test(video.name, async (context) => {
      await needFfmpeg(context);
      const path = await renderBurntIn(folder, video);
      if (video.refusedByExecutable) {
        await expect(openVideo(path, { decoder: 'ffmpeg', cacheDir })).rejects.toThrow(UnsupportedByDecoderError);
        return;
      }
      const { totalFrames } = await probeVideo(path, { cacheDir });
      const indices = sampledIndices(totalFrames, video.gop);
      for (const size of [{}, { width: 112, height: 56 }]) {
        const options = { ...size, cacheDir };
        const [first, second] = [
          await openVideo(path, options),
          await openVideo(path, { ...options, decoder: 'ffmpeg' }),
        ];
        const [expected, actual] = [await first.frames(indices), await second.frames(indices)];
        await first.close();
        await second.close();
        const different = actual.filter((frame, at) => Buffer.compare(frame.data, expected[at]!.data) !== 0);
        expect(different.map(({ index }) => index)).toEqual([]);
      }
    });
});

test('of several video streams both decoders read the same one', async (context) => {
  const ffmpeg = await needFfmpeg(context);
  const large = await renderBurntIn(folder, H264_VIDEOS[0]!);
  const small = join(folder, 'small.mp4');
  await renderScene({ width: 64, height: 32, fps: 24, frames: 220, background: '#ffffff', boxes: [] }, small);
  const both = join(folder, 'both.mp4');
  const maps = ['-map', '0:v', '-map', '1:v', '-c', 'copy', both];
  execFileSync(ffmpeg.path, ['-v', 'error', '-y', '-i', small, '-i', large, ...maps]);
  for (const decoder of ['node-av', 'ffmpeg'] as const) {
    const reader = await openVideo(both, { decoder, cacheDir });
    expect((await reader.frames([0, 5, 130])).map(readIndexCode)).toEqual([0, 5, 130]);
    await reader.close();
  }
});

test('the executable renders the same scene: every frame carries its number', async (context) => {
  await needFfmpeg(context);
  const size = { width: 240, height: 120 };
  const boxes = indexCodeBoxes({ ...size, frames: 150 });
  const scene = { ...size, fps: 24, frames: 150, background: '#202428', boxes };
  const path = join(folder, 'by-executable.mp4');
  await renderScene(scene, path, { renderer: 'ffmpeg' });
  expect(await probeVideo(path, { cacheDir })).toMatchObject({ totalFrames: 150, fps: 24, codec: 'h264' });
  const reader = await openVideo(path, { cacheDir });
  const indices = Array.from({ length: 150 }, (_, i) => i);
  expect((await reader.frames(indices)).map(readIndexCode)).toEqual(indices);
  await reader.close();
});
