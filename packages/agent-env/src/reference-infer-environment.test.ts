import { createRng, type Sample } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import type { FrameSource } from './frame-source.ts';
import { createReferenceInferEnvironment } from './reference-infer-environment.ts';

const rng = createRng(0, 'sample');
const frames: FrameSource = {
  probe: async () => ({ width: 1280, height: 720, fps: 25, totalFrames: 1000 }),
  get: async (video, indices, size) => {
    if (indices.includes(501)) throw new Error('damaged');
    return indices.map((index) => ({ video, index, ...size, sha256: 'x' }));
  },
};
const sample: Sample = {
  uid: 'q',
  prompt: [],
  videoPath: 'v.mp4',
  dataSource: 'd',
  groundTruth: 'A',
  extraInfo: {},
};

async function step(action: string, think = '<think>so</think>') {
  const environment = createReferenceInferEnvironment({ frames });
  await environment.reset(sample, rng);
  return environment.step(`${think}<action>${action}</action>`, rng);
}

describe('the original evaluation loop', () => {
  it('shows frames of a range, with neither space nor newline, and refuses where the original does', async () => {
    const shown = await step('I choose frames between  10 \n and 100 now');
    expect(shown).toMatchObject({ done: false, action: { kind: 'frames', start: 10, end: 100 } });
    expect(shown.message).toMatch(/^frame 11:<image>frame \d+:<image>/);
    expect(shown.frames.at(-1)).toMatchObject({ index: 99, width: 640, height: 360 });
    for (const range of ['10 and 18', '100 and 10', '900 and 1000']) {
      const end = await step(`choose frames between ${range}`);
      expect(end, range).toMatchObject({ done: true, reason: 'bad_action' });
    }
    expect(await step('choose frames between 10 and 19')).toMatchObject({ done: false });
    expect(await step('choose frames between 500 and 600')).toMatchObject({ reason: 'decode_error', error: 'damaged' });
  });

  it('tells frame numbers, past the end too, and takes the whole rest as the answer', async () => {
    expect(await step('get frame number at time 62:30')).toMatchObject({
      message: 'Frame number at time 62:30 is: 93750.',
      frameNumber: 93750,
      action: { kind: 'time', seconds: 3750 },
    });
    expect(await step('get frame number at time soon')).toMatchObject({ done: true, reason: 'bad_action' });
    expect(await step('output answer: B. the dog ')).toMatchObject({
      reason: 'answer',
      action: { kind: 'answer', answer: 'B. the dog' },
    });
    expect(await step('output answer: B', '')).toMatchObject({ done: true, reason: 'no_action' });
  });
});
