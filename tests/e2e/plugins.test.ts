/** @file Rewards and environments of one's own, in a training step with the real commands; also such that fail. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root, runCommand } from './processes.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-plugins-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const CONFIG = ['--config', join(root, 'configs/debug/tiny.yaml')];
const rows = join(dir, 'rows.jsonl');
interface Row {
  env_name: string;
  extra_info: { video_path: string };
}
interface Line {
  data_source: string;
  sample: number;
  end: string;
  error?: string;
  advantage: number | null;
  reward: { total: number; extras: Record<string, number> } | null;
  turns: { error?: string; text: string }[];
}
const jsonLines = <T>(file: string): T[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);

/** One training step on rows of the environment `mine`. */
async function trainStep(name: string, ...more: string[]) {
  const run = join(dir, name);
  const { code, lines } = await runCommand([
    ...['train', ...CONFIG, `trainer.default_local_dir=${run}`, `data.train_files=${rows}`],
    ...['data.val_max_samples=0', 'trainer.val_before_train=false', 'trainer.total_training_steps=1', ...more],
  ]);
  expect(lines.join('\n')).toContain('training is complete: 1 steps');
  expect(code).toBe(0);
  const [metrics] = jsonLines<Record<string, number>>(join(run, 'metrics.jsonl'));
  return { lines, metrics: metrics!, trajectories: jsonLines<Line>(join(run, 'trajectories/train/step_000001.jsonl')) };
}

beforeAll(async () => {
  expect((await runCommand(['data', 'synth', ...CONFIG])).code).toBe(0);
  const folder = join(root, 'data/synth/7');
  const own = jsonLines<Row>(join(folder, 'train.jsonl')).map((row) => ({
    ...row,
    env_name: 'mine',
    extra_info: { ...row.extra_info, video_path: resolve(folder, row.extra_info.video_path) },
  }));
  mkdirSync(dir, { recursive: true });
  writeFileSync(rows, own.map((row) => JSON.stringify(row)).join('\n'));
});

describe('plug-ins', () => {
  it('trains on the examples: extras of the reward are metrics, the environment has its say', async () => {
    const { metrics, trajectories } = await trainStep(
      'examples',
      'env.registry={mine: examples/agent/environments/one-look.ts}',
      'custom_reward_function.path=examples/agent/rewards/few-frames.ts',
      'custom_reward_function.reward_kwargs={look_cost: 0.25}',
      'actor_rollout_ref.rollout.n=4',
    );
    expect(metrics['reward/looks/mean']).toBeGreaterThanOrEqual(0);
    expect(Object.keys(metrics).filter((key) => key.startsWith('agent/error/'))).toEqual([]);
    const totals = trajectories.map(({ reward }) => reward?.total);
    expect(totals).toHaveLength(8);
    for (const total of totals) expect([0, 0.25, 0.5, 0.75, 1]).toContain(total);
  });

  it('scores each row by the reward of its data source, others by the default', async () => {
    const mixed = join(dir, 'mixed.jsonl');
    const [first, second] = jsonLines<Row>(rows);
    writeFileSync(mixed, [{ ...first, data_source: 'few' }, second].map((row) => JSON.stringify(row)).join('\n'));
    const { lines, metrics, trajectories } = await trainStep(
      'by-source',
      'env.registry={mine: examples/agent/environments/one-look.ts}',
      `data.train_files=${mixed}`,
      'reward.by_data_source={few: {path: examples/agent/rewards/few-frames.ts, reward_kwargs: {look_cost: 0.25}}}',
    );
    expect(new Set(trajectories.map(({ data_source }) => data_source)).size).toBe(2);
    for (const { data_source, reward } of trajectories)
      expect(Object.hasOwn(reward!.extras, 'looks'), data_source).toBe(data_source === 'few');
    expect(metrics['reward/looks/mean']).toBeGreaterThanOrEqual(0);
    expect(lines.filter((line) => line.includes('is not in reward.by_data_source'))).toHaveLength(1);
  });

  it('goes on without trajectories whose reward or environment throws, and counts them', async () => {
    writeFileSync(
      join(dir, 'reward.mjs'),
      "export const compute_score = ({ trajectory }) => { if (trajectory.sample === 0) throw new Error('no score today'); return trajectory.sample; };",
    );
    writeFileSync(
      join(dir, 'environment.mjs'),
      `let episodes = 0;
       export default () => {
         const broken = episodes++ % 4 === 3;
         return {
           reset: async () => {},
           step: async () => { if (broken) throw new Error('the simulator is gone'); return { frames: [], done: true, reason: 'answer', action: { kind: 'answer', answer: 'A' } }; },
           close: async () => {},
         };
       };`,
    );
    const { lines, metrics, trajectories } = await trainStep(
      'failing',
      `env.registry={mine: ${join(dir, 'environment.mjs')}}`,
      `custom_reward_function.path=${join(dir, 'reward.mjs')}`,
      'actor_rollout_ref.rollout.n=4',
    );
    expect(metrics['agent/error/env_error']).toBeGreaterThanOrEqual(1);
    expect(metrics['agent/error/reward_error']).toBeGreaterThanOrEqual(1);
    expect(lines.join('\n')).toMatch(/reward of .* sample 0 \(step 1\): .*no score today/);
    const left = trajectories.filter(({ error }) => error !== undefined);
    expect(left).toHaveLength(metrics['agent/error/env_error']! + metrics['agent/error/reward_error']!);
    for (const { reward } of left) expect(reward).toBeNull();
    const broken = trajectories.filter(({ end }) => end === 'env_error');
    expect(broken.length).toBe(metrics['agent/error/env_error']);
    // Masked out: no advantage; the others have one.
    for (const { advantage, error } of trajectories) expect(advantage === null).toBe(error !== undefined);
    for (const { turns } of broken) expect(turns.map(({ error }) => error)).toContain('the simulator is gone');
    expect(metrics['actor/grad_norm']).toBeGreaterThan(0);
  });
});
