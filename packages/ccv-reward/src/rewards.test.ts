import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError, type Sample, type Trajectory } from '@frame-thinker/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadReward, RewardError } from './plug-in.ts';
import { createRewards, type RewardSpec, type RewardsOptions } from './rewards.ts';
import { scoreRows } from './score-rows.ts';

let baseDir = '';
beforeAll(() => {
  baseDir = mkdtempSync(join(tmpdir(), 'reward-'));
  writeFileSync(
    join(baseDir, 'mine.mjs'),
    `export const compute_score = ({ solution_str, ground_truth, data_source }, { scale = 1 }) =>
       ({ score: scale * Number(solution_str === ground_truth), acc: true, length: solution_str.length, from_synth: data_source === 'synth' });
     export const four = async () => [0.5, 1, 1, -0.5];
     export const number = () => 0.25;
     export const wrong = () => 'good';
     export const nan = () => ({ score: 1, speed: NaN });
     export const fails = () => { throw new Error('no network'); };`,
  );
});
afterAll(() => rmSync(baseDir, { recursive: true, force: true }));

const sample: Sample = {
  uid: 'q1',
  prompt: [],
  dataSource: 'synth',
  groundTruth: 'C',
  extraInfo: { question: '', total_frames: 99 },
};
const turn = {
  role: 'assistant' as const,
  start: 0,
  end: 1,
  ms: 0,
  text: '<think>t</think><action>output answer: C</action>',
};
const trajectory = {
  uid: 'q1',
  end: 'answer',
  turns: [{ ...turn, action: { kind: 'answer', answer: 'c' } }],
} as unknown as Trajectory;
const plugIn = (name: string) => loadReward({ path: 'mine.mjs', name }, baseDir);

describe('loadReward', () => {
  it('takes a number, extras, or four numbers', async () => {
    const mine = await loadReward({ path: 'mine.mjs', reward_kwargs: { scale: 3 } }, baseDir);
    const extras = { length: 1, from_synth: 1 };
    expect(await mine(trajectory, sample, 'C')).toEqual({ total: 3, acc: 1, format: 0, other: 0, rules: [], extras });
    expect(await (await plugIn('four'))(trajectory, sample, '')).toMatchObject({
      total: 0.5,
      acc: 1,
      format: 1,
      other: -0.5,
    });
    expect(await (await plugIn('number'))(trajectory, sample, '')).toMatchObject({ total: 0.25, acc: 0.25 });
  });
  it('reports what went wrong as an error of that trajectory', async () => {
    for (const [name, message] of [
      ['fails', /fails failed on q1: no network/],
      ['wrong', /returned 'good'/],
      ['nan', /speed is null, not a finite number/],
    ] as const)
      await expect((await plugIn(name))(trajectory, sample, '')).rejects.toThrow(
        expect.objectContaining({ name: 'RewardError', message: expect.stringMatching(message) }),
      );
  });
  it.each([
    [{ path: 'reward.py' }, /Python is not run/],
    [{ path: 'gone.mjs' }, /no such file/],
    [{ path: 'mine.mjs', name: 'score' }, /exports no function score; it exports compute_score, /],
  ])('refuses %j', async (spec, message) => {
    await expect(loadReward(spec, baseDir)).rejects.toThrow(message);
    await expect(loadReward(spec, baseDir)).rejects.toThrow(InputError);
  });
});

describe('createRewards', () => {
  const create = (options: Partial<RewardsOptions> = {}) => createRewards({ framesOf: () => 8, baseDir, ...options });
  it('scores by data source, else by the default, which it says once', async () => {
    const unknown: string[] = [];
    const options = {
      byDataSource: { synth: { path: 'mine.mjs', name: 'number' } },
      onUnknownSource: (s: string) => unknown.push(s),
    };
    const { score } = await create(options);
    expect((await score(trajectory, sample, '')).total).toBe(0.25);
    for (let i = 0; i < 2; i++) expect((await score(trajectory, { ...sample, dataSource: 'vstar' }, '')).total).toBe(1);
    expect(unknown).toEqual(['vstar']);
  });
  it('has ccv, ccv-v11 and a custom function as default', async () => {
    expect((await (await create({ default: 'ccv-v11' })).score(trajectory, sample, turn.text)).total).toBe(1);
    expect((await (await create({ default: 'ccv-v11' })).score(trajectory, sample, '')).total).toBe(0);
    const custom = { path: 'mine.mjs', name: 'four' };
    expect((await (await create({ customRewardFunction: custom })).score(trajectory, sample, '')).total).toBe(0.5);
    expect((await (await create({ customRewardFunction: { path: null } })).score(trajectory, sample, '')).total).toBe(
      1,
    );
    await expect(create({ default: 'ccv2' as RewardSpec })).rejects.toThrow(/"ccv2" is not known/);
  });
  it('wraps an error of ours too', async () => {
    const { score } = await create({
      framesOf: () => {
        throw new Error('no regime');
      },
    });
    await expect(score(trajectory, sample, '')).rejects.toThrow(RewardError);
  });
});

describe('scoreRows', () => {
  const rows = (reward: RewardSpec, ...lines: unknown[]) => scoreRows(lines, { reward, baseDir, framesOf: () => 8 });
  const plain = { solution_str: turn.text, ground_truth: 'C', extra_info: sample.extraInfo };
  const line = {
    version: 1,
    step: 3,
    uid: 'q1',
    sample: 0,
    data_source: 'synth',
    ground_truth: 'C',
    end: 'answer',
    turns: trajectory.turns,
    frames: [],
    text: turn.text,
  };
  it('scores texts with ccv-v11, and trajectory lines with both', async () => {
    expect(
      (await rows('ccv-v11', plain, { ...plain, ground_truth: 3 }, { ...plain, extra_info: null })).map((r) => [
        r.total,
        r.format,
      ]),
    ).toEqual([
      [1, 1],
      [0, 1],
      [0, 0],
    ]);
    expect(await rows('ccv', line)).toMatchObject([{ total: 1, rules: [] }]);
    expect(await rows('ccv-v11', { ...line, extra_info: sample.extraInfo })).toMatchObject([{ total: 1 }]);
  });
  it('keeps going where a reward fails', async () => {
    expect(await rows({ path: 'mine.mjs', name: 'fails' }, plain)).toMatchObject([
      { total: 0, error: expect.stringContaining('no network') },
    ]);
  });
  it('names the row that cannot be scored', async () => {
    await expect(rows('ccv', line, plain)).rejects.toThrow(/row 2: ccv scores the environment's record/);
    await expect(rows('ccv-v11', { ground_truth: 'C' })).rejects.toThrow(/row 1: has no solution_str/);
    await expect(rows('ccv-v11', { solution_str: 'x' })).rejects.toThrow(/row 1: has no ground_truth/);
    await expect(rows('ccv-v11', [])).rejects.toThrow(/row 1: not an object/);
  });
});
