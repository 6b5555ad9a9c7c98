import { trainSchema } from '@frame-thinker/config';
import type { Group, Sample, Trajectory } from '@frame-thinker/core';
import { expect, it } from 'vitest';
import { generate } from './generation.ts';
import { overlongPenalty, withOverlongPenalty } from './overlong-penalty.ts';
import { PhaseTimer } from './phase-timer.ts';
import { createQuestionSampler } from './question-sampler.ts';
import type { ScoredGroup } from './scored-groups.ts';

const samples: Sample[] = Array.from({ length: 12 }, (_, i) => ({
  ...{ uid: `q${i}`, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} },
}));
const trajectory = (uid: string, sample: number, length = 8): Trajectory => ({
  ...{ uid, sample, step: 1, promptLength: 2, frames: [], turns: [], end: 'answer', toolCalls: 0 },
  ids: new Int32Array(length),
  mask: new Uint8Array(length),
  logProbs: new Float32Array(length),
});

/** Questions whose number is divisible by `every` have trajectories that differ. */
async function run(
  drawn: number,
  { every = 1, filter = {}, data = {} }: { every?: number; filter?: object; data?: object },
) {
  const config = trainSchema.parse({
    data: { train_batch_size: 2, gen_batch_size: 3, ...data },
    actor_rollout_ref: { rollout: { n: 2 } },
    algorithm: { filter_groups: { enable: true, max_num_gen_batches: 3, ...filter } },
  });
  const asked: Group[] = [];
  const lines: string[] = [];
  const found = await generate(drawn, {
    ...{ config, samples, step: 1, timer: new PhaseTimer(() => {}), videosReady: async () => {} },
    sampler: createQuestionSampler({ rows: 12, batchSize: config.data.gen_batch_size, seed: 1, shuffle: false }),
    rollOut: async (groups) => {
      asked.push(...groups);
      return groups.map((group) => ({ group, trajectories: [0, 1].map((n) => trajectory(group.sample.uid, n)) }));
    },
    score: async ({ group, trajectories }): Promise<ScoredGroup> => ({
      group,
      members: trajectories.map((one, n) => {
        const acc = Number(group.sample.uid.slice(1)) % every === 0 ? n : 1;
        const reward = { total: n, acc, format: 1, other: 0, rules: [], extras: { tempo: 1 } };
        return { trajectory: one, text: '', reward };
      }),
    }),
    interrupted: () => false,
    print: (line) => lines.push(line),
  });
  return { asked, lines, found: found!, kept: found!.groups.map(({ group }) => group.sample.uid) };
}

it('takes further batches until enough questions differ, each place with random numbers of its own', async () => {
  const { kept, found, asked, lines } = await run(1, { every: 5 });
  expect(kept).toEqual(['q5', 'q10']);
  expect(asked.map(({ position }) => position)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  expect(asked[0]!.sample.uid).toBe('q3');
  expect(found.batches).toBe(3);
  expect(found.metrics).toEqual({ 'train/num_gen_batches': 3, 'train/num_filtered_groups': 7 });
  expect(lines).toEqual(['  step 1: 2 of 9 questions kept by acc in 3 batches']);
  expect((await run(0, {})).kept).toEqual(['q0', 'q1']);
});

it('ends at max_num_gen_batches with what it has, and says so', async () => {
  const { kept, lines } = await run(0, { every: 5, filter: { max_num_gen_batches: 1 } });
  expect(kept).toEqual(['q0']);
  expect(lines[0]).toContain('1 of 3 questions kept by acc in 1 batch, fewer than data.train_batch_size = 2');
  const none = await run(1, { every: 99, filter: { max_num_gen_batches: 2 } });
  expect(none.kept).toEqual(['q7', 'q8']);
  expect(none.lines[0]).toContain('0 of 6');
  expect([none.found.teaches, (await run(0, {})).found.teaches]).toEqual([false, true]);
});

it('compares the metric that is asked for', async () => {
  expect((await run(0, { every: 99, filter: { metric: 'score' } })).kept).toEqual(['q0', 'q1']);
  expect((await run(1, { filter: { metric: 'tempo' } })).lines[0]).toContain('0 of 9');
  await expect(run(0, { filter: { metric: 'taste' } })).rejects.toThrow(
    /algorithm.filter_groups.metric: the reward of q0 has no taste/,
  );
});

it('draws one batch where it does not filter', async () => {
  const plain = await run(2, { filter: { enable: false }, data: { gen_batch_size: 2 } });
  expect(plain.kept).toEqual(['q4', 'q5']);
  expect(plain.found).toMatchObject({ batches: 1, metrics: {}, filtered: [] });
  expect(plain.lines).toEqual([]);
});

it('penalises responses that come near the limit', () => {
  const options = { limit: 100, len: 20, factor: 0.5 };
  expect([0, 80, 81, 90, 100].map((length) => overlongPenalty(length, options))).toEqual([0, 0, -0.025, -0.25, -0.5]);
  const group: ScoredGroup = {
    group: { sample: samples[0]!, position: 0, n: 2, step: 1 },
    members: [8, 12].map((length, n) => ({
      trajectory: trajectory('q0', n, length),
      text: '',
      reward: { total: 1, acc: 1, format: 1, other: 0, rules: [], extras: {} },
    })),
  };
  const settings = (manager: string) =>
    trainSchema.parse({
      data: { max_response_length: 10 },
      reward_model: {
        reward_manager: manager,
        overlong_buffer: { enable: true, len: 4, penalty_factor: 2, log: true },
      },
    });
  const { members } = withOverlongPenalty(group, settings('dapo'));
  expect(members.map(({ reward }) => reward)).toMatchObject([
    { total: 1, acc: 1, extras: { overlong_reward: 0, overlong: 0 } },
    { total: -1, acc: 1, extras: { overlong_reward: -2, overlong: 1 } },
  ]);
  expect(withOverlongPenalty(group, settings('naive'))).toBe(group);
});
