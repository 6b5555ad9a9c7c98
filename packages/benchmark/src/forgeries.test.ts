import type { Sample } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import type { TryRecord } from './evaluation-log.ts';
import { FORGERIES, honestEpisode, scoreForgery } from './forgeries.ts';

const REGIME = { frames: 8, maxWidth: 112, maxHeight: 56 };
const regimes = { limitSeconds: 300, short: REGIME, long: REGIME };
const turn = (role: 'assistant' | 'user', fields: object = {}) => ({
  role,
  start: 0,
  end: 0,
  text: '',
  ms: 0,
  ...fields,
});
const record: TryRecord = {
  version: 1,
  row: 7,
  try: 0,
  final: true,
  outcome: 'right',
  answer: 'B',
  ground_truth: 'B',
  kind: 'colour',
  data_source: 'synth',
  end: 'answer',
  tool_calls: 2,
  choices: 1,
  images: 16,
  rules: [],
  extra_info: {
    question: 'What colour is shown at 3:20?\nA: red\nB: blue\nC: cyan\nD: white',
    fps: 24,
    total_frames: 9000,
    video_path: 'videos/test_000.mp4',
    width: 224,
    height: 112,
  },
  turns: [
    turn('assistant', { action: { kind: 'time', time: '3:20', seconds: 200 }, frameNumber: 4800 }),
    turn('user'),
    turn('assistant', { action: { kind: 'frames', start: 4800, end: 4899 } }),
    turn('user'),
    turn('assistant', { action: { kind: 'answer', answer: 'B' } }),
  ],
  frames: [],
  text: '',
};

describe('forged episodes', () => {
  const episode = honestEpisode(record)!;
  const score = (name: string) => scoreForgery(FORGERIES[name]!(episode), { sample: episode.sample, regimes });

  it('are made of right tries that asked for a time and looked', () => {
    expect(episode).toMatchObject({ time: '3:20', frame: 4800, range: [4800, 4899], answer: 'B' });
    expect(episode.sample).toMatchObject({ totalFrames: 9000, fps: 24, groundTruth: 'B' } satisfies Partial<Sample>);
    expect(honestEpisode({ ...record, outcome: 'wrong' })).toBeUndefined();
    expect(honestEpisode({ ...record, turns: record.turns.slice(2) })).toBeUndefined();
  });

  it('the honest one is paid alike by both rewards', async () => {
    expect(await score('the honest episode itself')).toEqual({ original: 1.52, ours: 1.52 });
  });

  it.each(Object.keys(FORGERIES).slice(1))(
    '%s: paid by the original; by the record only what it is worth',
    async (name) => {
      const { original, ours } = await score(name);
      expect(original).toBeGreaterThanOrEqual(1);
      // A right answer after a look, though at a time that the question does not name, is worth no bonus for the time.
      expect(ours).toBe(name.startsWith('a time that was not asked about') ? 1.02 : 0);
    },
  );
});
