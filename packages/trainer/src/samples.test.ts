import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readSamples } from './samples.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-samples-'));
afterAll(() => rmSync(dir, { recursive: true }));
const options = { envNameKey: 'env_name', allowAbsolutePaths: true, maxSamples: -1 };
const file = (name: string, text: string): string => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};
const row = {
  prompt: [{ role: 'user', content: 'q' }],
  data_source: 's',
  env_name: 'e',
  reward_model: { ground_truth: 'A' },
  extra_info: { video_path: 'v/a.mp4', fps: '24', total_frames: 48 },
};

describe('data files', () => {
  it('reads rows in verl form, video paths against the file', () => {
    const [sample] = readSamples([file('a.jsonl', `${JSON.stringify(row)}\n`)], options);
    expect(sample).toMatchObject({
      uid: '0',
      videoPath: join(dir, 'v/a.mp4'),
      fps: 24,
      totalFrames: 48,
      groundTruth: 'A',
      envName: 'e',
      dataSource: 's',
    });
  });
  it('reads short rows, lists and several files, and numbers them through', () => {
    const short = { video: 'a.mp4', question: 'What?', options: ['red', 'blue'], answer: 'B' };
    const lettered = { ...short, options: ['A. red', 'B. blue'] };
    const samples = readSamples(
      [file('b.json', JSON.stringify([short, lettered])), file('c.jsonl', JSON.stringify(row))],
      options,
    );
    expect(samples.map(({ uid }) => uid)).toEqual(['0', '1', '2']);
    expect(samples[0]?.prompt[0]?.content).toBe('What?\nA: red\nB: blue');
    expect(samples[1]?.prompt[0]?.content).toBe('What?\nA. red\nB. blue');
    expect(readSamples([join(dir, 'b.json'), join(dir, 'c.jsonl')], { ...options, maxSamples: 2 })).toHaveLength(2);
  });
  it.each([
    ['not JSON', 'x.jsonl', '{"a":1}\n{oops\n', /x\.jsonl:2: not JSON/],
    [
      'a row without answer',
      'y.jsonl',
      JSON.stringify({ ...row, reward_model: {} }),
      /y\.jsonl:1: reward_model\.ground_truth/,
    ],
    [
      'a path out of the folder',
      'z.jsonl',
      JSON.stringify({ ...row, extra_info: { video_path: '../a.mp4' } }),
      /leads out of/,
    ],
    ['an empty file', 'e.jsonl', '\n', /no rows/],
    ['parquet', 'p.parquet', '', /parquet/],
  ])('refuses %s with its place', (_, name, text, message) => {
    expect(() => readSamples([file(name, text)], options)).toThrow(message);
  });
  it('refuses a missing file, and absolute paths when asked to', () => {
    expect(() => readSamples([join(dir, 'none.jsonl')], options)).toThrow(/no such data file/);
    const absolute = file('abs.jsonl', JSON.stringify({ ...row, extra_info: { video_path: '/v/a.mp4' } }));
    expect(readSamples([absolute], options)[0]?.videoPath).toBe('/v/a.mp4');
    expect(() => readSamples([absolute], { ...options, allowAbsolutePaths: false })).toThrow(/is absolute/);
  });
});
