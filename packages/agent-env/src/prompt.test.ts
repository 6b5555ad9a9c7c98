import type { Sample } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import type { FrameSource } from './frame-source.ts';
import { buildPrompt, formatQuestion, type PromptOptions } from './prompt.ts';

const frames: FrameSource = {
  probe: async () => ({ width: 1920, height: 1080, fps: 25, totalFrames: 10_000 }),
  get: async (video, indices, size) => indices.map((index) => ({ video, index, ...size, sha256: 'x' })),
};

const sample = (fields: Partial<Sample> = {}): Sample => ({
  uid: 'q1',
  prompt: [],
  videoPath: 'v.mp4',
  dataSource: 'test',
  groundTruth: 'C',
  extraInfo: { index: 7, question: 'What happens at 2:03?', options: ['a dog', 'a cat'] },
  ...fields,
});

const build = (row = sample(), options: Partial<PromptOptions> = {}) => buildPrompt(row, { frames, ...options });

describe('buildPrompt', () => {
  it('samples the video of a row of question and options', async () => {
    const { messages, images, regime, totalFrames, fps } = await build();
    expect(messages.map((message) => message.role)).toEqual(['system', 'user']);
    expect(messages[0]!.content).toContain('currently 12;');
    expect(messages[1]!.content).toMatch(
      /^What happens at 2:03\?\nA\. a dog\nB\. a cat\n\nframe 0: <image>\nframe 909: <image>\n/,
    );
    expect(messages[1]!.content).toMatch(/\nframe 9999: <image>$/);
    expect(images).toHaveLength(regime.frames);
    expect(images[0]).toMatchObject({ kind: 'frame', frame: { index: 0, width: 448, height: 252 } });
    expect({ totalFrames, fps }).toEqual({ totalFrames: 10_000, fps: 25 });
  });
  it('appends the frames to a prompt that has none, and leaves its own system message', async () => {
    const prompt = [
      { role: 'system' as const, content: 'mine' },
      { role: 'user' as const, content: 'Q?' },
    ];
    const row = sample({ prompt });
    const { messages } = await build(row, { compat: 'reference' });
    expect(messages[0]!.content).toBe('mine');
    expect(messages[1]!.content).toMatch(/^Q\?\nframe 0:<image>frame 909:<image>/);
    expect(prompt[1]!.content).toBe('Q?');
    expect((await build(sample({ prompt: prompt.slice(1) }), { systemPrompt: 'none' })).messages).toHaveLength(1);
    expect((await build(sample(), { systemPrompt: 'see {n}' })).messages[0]!.content).toBe('see 12');
  });
  it('keeps the images of a row that has them', async () => {
    const images = [1, 2].map(() => ({ kind: 'rgb' as const, width: 8, height: 8, data: new Uint8Array(192) }));
    const prompt = [{ role: 'user' as const, content: 'Q?\n\nframe 0: <image>\nframe 9: <image>' }];
    const built = await build(sample({ prompt, images, fps: 1, totalFrames: 900 }));
    expect(built.images).toEqual(images);
    expect(built.messages.at(-1)).toEqual(prompt[0]);
    expect(built.regime.frames).toBe(12);
    await expect(build(sample({ prompt, images: images.slice(1) }))).rejects.toThrow(
      /row 7 \(q1\): 2 "<image>" marks .* 1 images/,
    );
  });
  it('refuses a mark in the question, with row and column', async () => {
    const extraInfo = { index: 7, question: 'What is <image>?' };
    await expect(build(sample({ extraInfo }))).rejects.toThrow(/row 7 \(q1\), column question, character 9: "<image>"/);
    const prompt = [{ role: 'user' as const, content: 'See <image>' }];
    await expect(build(sample({ prompt, extraInfo: {} }))).rejects.toThrow(/row q1, column prompt\[0\], character 5/);
    const options = ['fine', 'an <image>'];
    await expect(build(sample({ extraInfo: { question: 'Q', options } }))).rejects.toThrow(/column/);
  });
  it('takes a row of texts alone that names no environment', async () => {
    const prompt = [{ role: 'user' as const, content: 'What is 2 + 2?' }];
    const { messages, images } = await build(sample({ prompt, videoPath: '' }), { systemPrompt: 'none' });
    expect({ messages, images }).toEqual({ messages: prompt, images: [] });
    await expect(build(sample({ prompt, videoPath: '', envName: 'think_with_video' }))).rejects.toThrow('no video');
  });
  it('goes by the row where row and file disagree', async () => {
    const { totalFrames, images } = await build(sample({ totalFrames: 8000 }));
    expect(totalFrames).toBe(8000);
    expect(images.at(-1)).toMatchObject({ frame: { index: 7999 } });
  });
  it('refuses a row without question or video', async () => {
    await expect(build(sample({ extraInfo: {} }))).rejects.toThrow('neither a prompt nor a question');
    await expect(build(sample({ videoPath: '' }))).rejects.toThrow('no images and no video');
  });
});

describe('formatQuestion', () => {
  it('letters options that have no letter', () => {
    expect(formatQuestion('Q', ['x', 'B: y', '(C) z'])).toBe('Q\nA. x\nB: y\n(C) z');
  });
});
