import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { REFERENCE_REGIMES, type VideoFacts } from '@frame-thinker/agent-env';
import type { Sample } from '@frame-thinker/core';
import { loadProcessor } from '@frame-thinker/qwen-vl';
import { afterAll, describe, expect, it } from 'vitest';
import { checkPrompts, type PromptCheckOptions } from './prompt-check.ts';
import { createQuestionSampler } from './question-sampler.ts';
import { fingerprint } from './run-checkpoints.ts';
import { type DataRow, readRows } from './samples.ts';
import { VideoFactsBook } from './video-facts.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-prompts-'));
afterAll(() => rmSync(dir, { recursive: true }));
const processor = loadProcessor(join(import.meta.dirname, '../../../examples/agent/base'));
const file: VideoFacts = { width: 112, height: 56, fps: 10, totalFrames: 4000 };
let probes = 0;
const probe = async (path: string): Promise<VideoFacts> => {
  probes++;
  if (path.includes('broken')) throw new Error(`${path}: no video stream`);
  return file;
};
const sample = (uid: string, fields: Partial<Sample> = {}): Sample => ({
  uid,
  prompt: [{ role: 'user', content: 'What shape is shown at 2:50?' }],
  videoPath: '/v/a.mp4',
  dataSource: 's',
  envName: 'think_with_video',
  groundTruth: 'A',
  extraInfo: {},
  ...fields,
});
const rowsOf = (...samples: Sample[]): DataRow[] => samples.map((s) => ({ sample: s, where: `d.jsonl:${s.uid}` }));
const long = (uid: string) => sample(uid, { prompt: [{ role: 'user', content: 'shape '.repeat(40) }] });
const check = (rows: DataRow[], more: Partial<PromptCheckOptions> = {}) =>
  checkPrompts(rows, {
    processor,
    regimes: REFERENCE_REGIMES,
    systemPrompt: 'none',
    limits: { maxPromptLength: 1000 },
    filterOverlong: false,
    skipBroken: false,
    facts: new VideoFactsBook(probe),
    ...more,
  });

describe('checkPrompts', () => {
  it('counts image tokens: a video of 400 s is looked at with 12 frames of 8 tokens', async () => {
    const { envName: _, videoPath: __, ...texts } = sample('1');
    const text = await check(rowsOf(texts));
    const { longest } = await check(rowsOf(sample('1')));
    expect(longest - text.longest).toBeGreaterThan(12 * 8);
    const short = await check(rowsOf(sample('1', { fps: 100, totalFrames: 4000 })));
    // Per frame: its pads, vision_start, vision_end, and the line's own text.
    expect(longest - short.longest).toBeGreaterThanOrEqual(4 * (8 + 2));
  });
  it('refuses what is too long with its place, or leaves it out counted, or cuts it', async () => {
    const rows = rowsOf(sample('1'), long('2'));
    const { longest } = await check(rowsOf(sample('1')));
    const limits = { maxPromptLength: longest };
    await expect(check(rows, { limits })).rejects.toThrow(/^d\.jsonl:2: row 2: the prompt has \d+ tokens, more than/);
    const filtered = await check(rows, { limits, filterOverlong: true });
    expect(filtered.rows.map(({ sample: s }) => s.uid)).toEqual(['1']);
    expect(filtered.overlong).toBe(1);
    const cut = await check(rows, { limits: { ...limits, truncation: 'left' } });
    expect([cut.rows.length, cut.truncated]).toEqual([2, 1]);
    // The prompt ends with its frames, so that a cut on the right goes through the last of them.
    const inside = { maxPromptLength: longest - 8, truncation: 'right' as const };
    await expect(check(rowsOf(sample('1')), { limits: inside })).rejects.toThrow(/d\.jsonl:1: .*cut inside image/);
  });
  it('refuses a mark in a question before anything runs, or leaves the row out', async () => {
    const rows = rowsOf(sample('1'), sample('2', { prompt: [{ role: 'user', content: 'the <image> here' }] }));
    await expect(check(rows)).rejects.toThrow(/^d\.jsonl:2: row 2, column prompt\[0\], character 5/);
    const { rows: left, leftOut } = await check(rows, { skipBroken: true });
    expect([left.length, leftOut[0]?.where]).toEqual([1, 'd.jsonl:2']);
  });
  it('leaves a video that cannot be read to the rollout, and says so', async () => {
    const { rows, unreadable } = await check(rowsOf(sample('1', { videoPath: '/v/broken.mp4' })));
    expect(rows).toHaveLength(1);
    expect(unreadable).toEqual(['d.jsonl:1: /v/broken.mp4: no video stream']);
  });
});

describe('facts of videos', () => {
  it('complete rows that lack them, each video probed once; what a row says stays', async () => {
    const book = new VideoFactsBook(probe);
    probes = 0;
    const rows = rowsOf(sample('1'), sample('2', { fps: 25 }), sample('3', { fps: 24, totalFrames: 7 }));
    rows.push(...rowsOf(sample('4', { videoPath: '/v/broken.mp4' })));
    const { completed, unreadable } = await book.complete(rows);
    expect({ completed, unreadable: unreadable.length, probes }).toEqual({ completed: 2, unreadable: 1, probes: 2 });
    expect(rows.map(({ sample: s }) => [s.fps, s.totalFrames])).toEqual([
      [10, 4000],
      [25, 4000],
      [24, 7],
      [undefined, undefined],
    ]);
    expect(rows[0]!.sample.extraInfo).toEqual({ fps: 10, total_frames: 4000 });
  });
  it('are compared with what rows say, once a video', async () => {
    const videoPath = join(dir, 'a.mp4');
    writeFileSync(videoPath, '');
    const book = new VideoFactsBook(probe);
    const rows = [1, 2].map((i) => sample(`${i}`, { videoPath, fps: 30, totalFrames: 9 }));
    expect(await book.compare(rows)).toEqual([
      `row 1: total_frames is 9, but ${videoPath} has 4000`,
      `row 1: fps is 30, but that of ${videoPath} is 10`,
    ]);
    expect(await book.compare(rows)).toEqual([]);
  });
});

describe('several files', () => {
  it('are one list to the sampler; other files or another order are other rows to a resumed run', async () => {
    const paths = ['a', 'b', 'c'].map((name) => {
      const path = join(dir, `${name}.jsonl`);
      const row = (i: number) => ({
        prompt: [{ role: 'user', content: `${name}${i}` }],
        reward_model: { ground_truth: 'A' },
      });
      writeFileSync(path, [0, 1].map((i) => JSON.stringify(row(i))).join('\n'));
      return path;
    });
    const columns = { prompt: 'prompt', images: 'images', source: 'data_source', environment: 'env_name' };
    const read = async (files: string[]) =>
      (await readRows(files, { columns, allowAbsolutePaths: true, skipBroken: false, maxSamples: -1 })).rows.map(
        ({ sample: s }) => s,
      );
    const all = await read(paths);
    const shuffled = () => createQuestionSampler({ rows: all.length, batchSize: 2, seed: 3, shuffle: true });
    const undisturbed = [1, 2, 3, 4, 5, 6].map((step) => step).map(shuffled().rowsOf);
    const epoch = undisturbed
      .slice(0, 3)
      .flat()
      .map((i) => all[i]!.prompt[0]!.content);
    expect(epoch.toSorted()).toEqual(['a0', 'a1', 'b0', 'b1', 'c0', 'c1']);
    const resumed = shuffled();
    expect([5, 6].map(resumed.rowsOf)).toEqual(undisturbed.slice(4));
    expect(fingerprint(await read(paths))).toBe(fingerprint(all));
    expect(fingerprint(await read(paths.toReversed()))).not.toBe(fingerprint(all));
  });
});
