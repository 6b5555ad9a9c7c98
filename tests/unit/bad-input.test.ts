/** @file Input of `pnpm train` that cannot be used: one line, exit code 2, and nothing that was there is lost. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { run } from '@frame-thinker/cli';
import { loadConfig } from '@frame-thinker/config';
import { describe, expect, it } from 'vitest';
import { MODEL, RUN, rowsFile, scratch, trainingRun } from './config-walk/observers.ts';
import { item } from './config-walk/probe.ts';

const home = join(scratch, 'bad-input');
mkdirSync(home);
const file = (name: string, content: string | Uint8Array): string => {
  writeFileSync(join(home, name), content);
  return join(home, name);
};

/** Runs the command in this process; no worker is started, since the input is refused before. */
async function refused(...args: string[]): Promise<string> {
  const errors: string[] = [];
  const runs = join(home, 'runs');
  const code = await run(['train', ...args, item('trainer.default_local_dir', runs)], {
    out: () => {},
    err: (text) => errors.push(text),
  });
  expect({ code, lines: errors.join('\n').split('\n').length }).toEqual({ code: 2, lines: 1 });
  expect(existsSync(runs)).toBe(false);
  return errors[0]!;
}

describe('pnpm train refuses in one line', () => {
  it.each([
    ['that is not there', () => join(home, 'none.yaml'), /none\.yaml: there is no such file/],
    ['that is a folder', () => home, /cannot be read \(EISDIR/],
    ['that is not text', () => file('zip.yaml', Uint8Array.of(0x50, 0x4b, 3, 4, 0)), /zip\.yaml: not a text file/],
    ['that is broken', () => file('broken.yaml', 'data: {a: [1\nb: c: d'), /broken\.yaml:\d+:\d+ /],
    [
      'with an unknown key',
      () => file('key.yaml', 'trainer:\n  sav_freq: 1\n'),
      /key\.yaml:2:3 .*did you mean "save_freq"/,
    ],
  ])('a configuration %s', async (_, config, message) => {
    expect(await refused('--config', config())).toMatch(message);
  });

  const video = (name: string, videos: readonly string[]): string =>
    item(
      'data.train_files',
      rowsFile(name, videos.length, (i) => ({
        ...{ env_name: 'think_with_video', extra_info: { video_path: videos[i], fps: 24, total_frames: 240 } },
      })),
    );
  it.each([
    [
      'a video that is missing, with its row',
      [video('lost', ['gone.mp4', 'gone-too.mp4'])],
      /lost\.jsonl:1: .*gone\.mp4: no such video \(and 1 rows more\)/,
    ],
    ['data that is missing', ['data.train_files=none.jsonl'], /none\.jsonl: no such data file/],
    [
      'a model folder that is none',
      [`actor_rollout_ref.model.path=${scratch}`],
      /no model here \(config\.json is missing\)/,
    ],
    ['a model folder that is not there', ['actor_rollout_ref.model.path=nowhere'], /nowhere: no model here/],
    [
      'a checkpoint that is not there',
      ['trainer.resume_mode=resume_path', 'trainer.resume_from_path=nowhere/global_step_1'],
      /nowhere\/global_step_1: no such checkpoint/,
    ],
    ['a reward that is not there', ['custom_reward_function.path=none.py'], /Python file cannot be loaded/],
  ])('%s', async (_, overrides, message) => {
    expect(await refused(...RUN, ...overrides)).toMatch(message);
  });

  it('a model folder without its tokenizer, naming the file', async () => {
    const model = join(home, 'model');
    mkdirSync(model);
    for (const name of ['config.json', 'preprocessor_config.json', 'generation_config.json'])
      copyFileSync(join(MODEL, name), join(model, name));
    expect(await refused(...RUN, item('actor_rollout_ref.model.path', model))).toMatch(/tokenizer/);
  });
});

it('a truncated checkpoint ends a resume with the name of the file, and stays as it is', async () => {
  const folder = join(home, 'resumed');
  mkdirSync(folder);
  const settings = (...more: string[]) =>
    loadConfig({ overrides: [...RUN, 'trainer.default_local_dir=run', ...more], cores: 2 });
  expect(await trainingRun(settings('trainer.total_training_steps=1'), { folder })).toMatchObject({
    outcome: { code: 0 },
  });
  const actor = join(folder, 'run/global_step_1/actor');
  const shard = join(actor, readdirSync(actor).find((name) => name.startsWith('model_world_size'))!);
  truncateSync(shard, statSync(shard).size - 3);
  const metrics = readFileSync(join(folder, 'run/metrics.jsonl'), 'utf8');
  const { outcome } = (await trainingRun(settings(), { folder })) as { outcome: { error?: string } };
  expect(outcome.error).toMatch(/model_world_size/);
  expect(readFileSync(join(folder, 'run/metrics.jsonl'), 'utf8')).toBe(metrics);
  expect(existsSync(shard)).toBe(true);
});
