import { createRng, type Sample } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import type { FrameSource } from './frame-source.ts';
import { createSpotlightEnvironment, type SpotlightOptions } from './spotlight.ts';

const rng = createRng(0, 'sample');

function fakeFrames(file: { fps: number; totalFrames: number; readable?: number }): FrameSource & { probes: number } {
  return {
    probes: 0,
    async probe() {
      this.probes++;
      return { width: 1920, height: 1080, fps: file.fps, totalFrames: file.totalFrames };
    },
    async get(video, indices, size) {
      const missing = indices.find((index) => index >= (file.readable ?? file.totalFrames));
      if (missing !== undefined) throw new Error(`${video}: frame ${missing} is not available`);
      return indices.map((index) => ({ video, index, ...size, sha256: 'x' }));
    },
  };
}

const sample = (fields: Partial<Sample> = {}): Sample => ({
  uid: 'q1',
  prompt: [],
  videoPath: 'v.mp4',
  dataSource: 'test',
  groundTruth: 'C',
  extraInfo: {},
  ...fields,
});

async function step(
  block: string,
  options: Partial<SpotlightOptions> = {},
  row = sample(),
  text = `<action>${block}</action>`,
) {
  const environment = createSpotlightEnvironment({ frames: fakeFrames({ fps: 24, totalFrames: 2400 }), ...options });
  await environment.reset(row, rng);
  return environment.step(text, rng);
}

describe('the spotlight environment', () => {
  it('shows frames of a range at the size of its regime, and records them', async () => {
    const seen = await step('choose frames between 100 and 200');
    expect(seen).toMatchObject({ done: false, action: { kind: 'frames', start: 100, end: 200 } });
    expect(seen.frameIndices).toEqual([101, 115, 129, 143, 157, 171, 185, 199]);
    expect(seen.frames.map((frame) => frame.index)).toEqual(seen.frameIndices);
    expect(seen.frames[0]).toMatchObject({ width: 640, height: 360 });
    expect(seen.message?.split('\n')).toHaveLength(8);
    expect(seen.message).toMatch(/^frame 101: <image>\nframe /);
  });
  it('cuts a range at the end, and refuses what is past it or too short', async () => {
    expect((await step('choose frames between 2000 and 99999')).frameIndices?.at(-1)).toBe(2399);
    expect(await step('choose frames between 2401 and 9999')).toMatchObject({ done: true, reason: 'out_of_range' });
    expect(await step('choose frames between 100 and 108')).toMatchObject({ done: true, reason: 'range_too_short' });
    expect((await step('choose frames between 100 and 109')).done).toBe(false);
    expect(await step('choose frames between 2392 and 9999')).toMatchObject({ reason: 'range_too_short' });
  });
  it('names the frame at a time, and the last one past the end', async () => {
    expect(await step('get frame number at time 1:00')).toMatchObject({
      message: 'Frame number at time 1:00 is: 1440.',
      frameNumber: 1440,
      done: false,
    });
    expect(await step('get frame number at time 1:40')).toMatchObject({
      message: 'Frame number at time 1:40 is: 2399. (the video ends at frame 2399)',
      frameNumber: 2399,
    });
    expect(await step('get frame number at time 1:40', { grammar: 'reference' })).toMatchObject({ frameNumber: 2400 });
  });
  it('ends with its reason', async () => {
    expect(await step('output answer: (c).')).toMatchObject({
      done: true,
      reason: 'answer',
      action: { kind: 'answer', answer: '(c).' },
    });
    expect(await step('look closer')).toMatchObject({
      done: true,
      reason: 'bad_action',
      error: expect.stringContaining('look closer'),
    });
    expect(await step('', {}, sample(), 'hello')).toMatchObject({ done: true, reason: 'no_action' });
    expect(await step('', {}, sample(), '')).toMatchObject({ done: true, reason: 'empty' });
  });
  it('records no action that was not executed', async () => {
    for (const block of ['choose frames between 1 and 2', 'choose frames between 9999 and 99999', 'x'])
      expect((await step(block)).action).toBeUndefined();
  });
  it('turns what cannot be decoded into an end that is not the policy’s doing', async () => {
    const short = fakeFrames({ fps: 24, totalFrames: 2400, readable: 1000 });
    expect(await step('choose frames between 900 and 1100', { frames: short })).toMatchObject({
      done: true,
      reason: 'decode_error',
      error: expect.stringContaining('not available'),
    });
    expect(await step('choose frames between 1 and 99', {}, sample({ videoPath: '' }))).toMatchObject({
      reason: 'env_error',
    });
    expect(await step('output answer: A', {}, sample({ videoPath: '' }))).toMatchObject({ reason: 'answer' });
  });
  it('takes facts from the row, then from the file, and refuses facts that are no numbers', async () => {
    const frames = fakeFrames({ fps: 24, totalFrames: 2400 });
    const row = sample({ fps: 10, extraInfo: { total_frames: 500, width: 320, height: 240 } });
    expect(await step('get frame number at time 0:05', { frames }, row)).toMatchObject({ frameNumber: 50 });
    expect((await step('choose frames between 1 and 99', { frames }, row)).frames[0]).toMatchObject({
      width: 320,
      height: 240,
    });
    expect(frames.probes).toBe(0);
    await expect(step('x', {}, sample({ extraInfo: { index: 3, fps: '30' } }))).rejects.toThrow(
      /row 3 \(q1\): fps is "30"/,
    );
  });
  it('has the size of the first prompt image', async () => {
    const images = [{ kind: 'rgb' as const, width: 100, height: 50, data: new Uint8Array() }];
    expect((await step('choose frames between 1 and 99', {}, sample({ images }))).frames[0]).toMatchObject({
      width: 100,
      height: 50,
    });
  });
  it('does not throw when the file cannot be probed', async () => {
    const frames: FrameSource = {
      ...fakeFrames({ fps: 1, totalFrames: 1 }),
      probe: () => Promise.reject(new Error('no such file')),
    };
    expect(await step('get frame number at time 0:01', { frames })).toMatchObject({
      reason: 'env_error',
      error: 'no such file',
    });
  });
});
