// biome-ignore-all lint/suspicious/noTemplateCurlyInString: interpolations of configuration files.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { keysOf } from './keys.ts';
import { configJsonSchema, loadConfig, printResolved } from './load.ts';
import { trainSchema } from './schema/train.ts';

const root = join(import.meta.dirname, '../../..');
let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'config-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function yaml(text: string): string {
  const file = join(folder, 'bad.yaml');
  writeFileSync(file, text);
  return file;
}
/** The lines of the error, without the folder. */
function complaints(text: string, overrides: string[] = []): string[] {
  try {
    loadConfig({ file: yaml(text), overrides });
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message.replaceAll(`${folder}/`, '').split('\n');
  }
  return [];
}
const load = (...overrides: string[]) => loadConfig({ overrides, cores: 4 });

describe('errors of a file', () => {
  it('names an unknown key with its place and the one that was meant', () => {
    expect(complaints('trainer:\n  total_epoch: 3\n')).toEqual([
      'bad.yaml:2:3 trainer.total_epoch: unknown key - did you mean "total_epochs"?',
    ]);
    expect(complaints('actor_rollout_ref:\n  actor:\n    lr: 1\n')).toEqual([
      'bad.yaml:3:5 actor_rollout_ref.actor.lr: unknown key - did you mean "actor_rollout_ref.actor.optim.lr"?',
    ]);
    expect(complaints('xyzzy: 1')).toEqual([
      expect.stringMatching(/^bad.yaml:1:1 xyzzy: unknown key \(the blocks are data, .*, trainer\)$/),
    ]);
  });

  it('names a wrong value with its place and what is expected', () => {
    const lines = complaints(
      [
        'data:',
        '  train_batch_size: many',
        '  train_files: 5',
        'algorithm: {adv_estimator: grop}',
        'trainer: {save_freq: 0, logger: [consol], project_name: 5}',
        'engine: []',
        'actor_rollout_ref:',
        '  rollout: {top_p: 2, n: 1.5}',
      ].join('\n'),
    );
    expect(lines).toEqual([
      'bad.yaml:2:3 data.train_batch_size: expected a number, got "many"',
      'bad.yaml:3:3 data.train_files: expected a path or a list of paths, got 5',
      expect.stringMatching(
        /^bad.yaml:4:13 algorithm.adv_estimator: expected one of gae, .* got "grop" - did you mean "grpo"\?$/,
      ),
      'bad.yaml:5:11 trainer.save_freq: expected -1 (never) or a number of steps >= 1, got 0',
      expect.stringMatching(/^bad.yaml:5:25 trainer.logger: expected one logger .* got \["consol"\]$/),
      'bad.yaml:5:43 trainer.project_name: expected text, got 5 (put it in quotes)',
      'bad.yaml:6:1 engine: expected a block of keys, got []',
      'bad.yaml:8:13 actor_rollout_ref.rollout.top_p: expected a number <= 1, got 2',
      'bad.yaml:8:23 actor_rollout_ref.rollout.n: expected a whole number, got 1.5',
    ]);
  });

  it('names broken YAML, a repeated key and a missing file', () => {
    expect(complaints('data: [1')).toEqual([expect.stringMatching(/^bad\.yaml:1:\d+ /)]);
    expect(complaints('a: {b: [1\nc: d: e\n')).toEqual([expect.stringMatching(/^bad\.yaml:\d+:\d+ /)]);
    expect(complaints('ray: {}\nray: {}')[0]).toMatch(/^bad\.yaml:2:1 .*unique/);
    expect(complaints('- 1')).toEqual(['bad.yaml:1:1 expected keys like "trainer:", got something else']);
    expect(() => loadConfig({ file: join(folder, 'none.yaml') })).toThrow(/none\.yaml: there is no such file/);
  });

  it('says of a file that is not text that it is not', () => {
    for (const bytes of [
      [0x50, 0x4b, 3, 4, 0, 0],
      [0x61, 0xff, 0xfe],
    ]) {
      const file = join(folder, 'model.bin');
      writeFileSync(file, Uint8Array.from(bytes));
      expect(() => loadConfig({ file })).toThrow(`${file}: not a text file`);
    }
    expect(() => loadConfig({ file: folder })).toThrow(/cannot be read/);
  });

  it('refuses by name what has no code', () => {
    expect(complaints('actor_rollout_ref:\n  model:\n    lora_rank: 8')).toEqual([
      expect.stringMatching(/^bad.yaml:3:5 actor_rollout_ref.model.lora_rank: 8 is refused: LoRA .*supported: 0\)$/),
    ]);
    expect(complaints('', ['actor_rollout_ref.actor.kl_loss_type=full'])[0]).toMatch(/"full" is refused/);
    expect(complaints('', ['data.apply_chat_template_kwargs={a: 1}'])[0]).toMatch(/is refused/);
    expect(complaints('', ['custom_reward_function.path=my.py'])[0]).toMatch(/Python file cannot be loaded/);
    expect(complaints('', ['reward.by_data_source={mine: {path: my.py}}'])[0]).toMatch(/Python file cannot be loaded/);
    expect(complaints('', ['reward.default={path: my.ts}'])).toEqual([]);
  });
});

describe('overrides', () => {
  it('come after the file, which comes after the defaults', () => {
    const file = yaml('trainer:\n  save_freq: 7\n  test_freq: 8\n');
    const { config } = loadConfig({ file, overrides: ['trainer.test_freq=9', 'trainer.test_freq=10'] });
    expect([config.trainer.save_freq, config.trainer.test_freq, config.trainer.nnodes]).toEqual([7, 10, 1]);
  });

  it('know lists, quotes, null, True, + and what YAML would misread', () => {
    const { config } = load(
      'data.train_files=[a.parquet,"b c.json"]',
      'data.val_files=null',
      'data.shuffle=False',
      '+trainer.resume_from_path="x=y"',
      'data.system_prompt=Look: think # then act',
      'actor_rollout_ref.actor.optim.lr=5e-7',
      'actor_rollout_ref.actor.optim.betas=[0.9,0.95]',
      'ray.address=ray://h:10001',
      "trainer.logger=['console','swanlab']",
    );
    expect(config.data.train_files).toEqual(['a.parquet', 'b c.json']);
    expect(config.data.val_files).toEqual([]);
    expect(config.data.shuffle).toBe(false);
    expect(config.trainer.resume_from_path).toBe('x=y');
    expect(config.data.system_prompt).toBe('Look: think # then act');
    expect(config.actor_rollout_ref.actor.optim).toMatchObject({ lr: 5e-7, betas: [0.9, 0.95] });
    expect(config.ray.address).toBe('ray://h:10001');
    expect(config.trainer.logger).toEqual(['console', 'swanlab']);
  });

  it('are named in errors', () => {
    const thrown = (item: string) => () => load(item);
    expect(thrown('trainer.total_epoch=3')).toThrow(
      'command line: trainer.total_epoch=3: trainer.total_epoch: unknown key - did you mean "total_epochs"?',
    );
    expect(thrown('+mine=3')).toThrow('command line: +mine=3: mine: unknown key (the blocks are data, algorithm, ');
    expect(thrown('+foo.bar=1')).toThrow('command line: +foo.bar=1: foo.bar: unknown key (the blocks are data, ');
    expect(thrown('+foo.save_freq=1')).toThrow(
      'command line: +foo.save_freq=1: foo.save_freq: unknown key - did you mean "trainer.save_freq"?',
    );
    expect(thrown('+trainr.save_frq=1')).toThrow('trainr.save_frq: unknown key - did you mean "trainer.save_freq"?');
    expect(thrown('+trainr.x=1')).toThrow('trainr: unknown key - did you mean "trainer"?');
    expect(thrown('data.train_files=[a')).toThrow(/^command line: data\.train_files=\[a: /);
    expect(thrown('trainer')).toThrow(/expected key=value/);
    expect(thrown('__proto__.x=1')).toThrow(/unknown key/);
  });
});

describe('interpolation', () => {
  it('takes values and writes into text, from the file, the overrides and the defaults', () => {
    const { config } = load(
      'data.max_response_length=100',
      'data.max_prompt_length=${data.max_response_length}',
      'trainer.experiment_name="n${actor_rollout_ref.rollout.n}_${data.truncation}"',
      'data.train_files=[${trainer.project_name}/a.json]',
    );
    expect(config.data.max_prompt_length).toBe(100);
    expect(config.trainer.experiment_name).toBe('n8_error');
    expect(config.trainer.default_local_dir).toBe('runs/frame_thinker/n8_error');
    expect(config.data.train_files).toEqual(['frame_thinker/a.json']);
  });

  it('refuses circles and unknown keys', () => {
    expect(() => load('data.seed=${data.seed}')).toThrow(/refers to itself/);
    expect(() => load('data.seed=${data.sed}')).toThrow(/there is no such key/);
  });

  it('lets keys follow others unless they are set', () => {
    const { config } = load('actor_rollout_ref.actor.clip_ratio=0.3', 'actor_rollout_ref.actor.clip_ratio_high=0.4');
    expect(config.actor_rollout_ref.actor).toMatchObject({ clip_ratio_low: 0.3, clip_ratio_high: 0.4 });
    expect(load('data.train_batch_size=6').config.actor_rollout_ref.actor.ppo_mini_batch_size).toBe(6);
    expect(load('trainer.seed=5', 'data.seed=null').config.data.seed).toBe(5);
  });
});

describe('cross checks', () => {
  it.each([
    ['actor_rollout_ref.actor.ppo_mini_batch_size=5', /5 does not divide data\.train_batch_size = 32/],
    [
      'actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3',
      /3 does not divide ppo_mini_batch_size x rollout\.n = 256/,
    ],
    ['actor_rollout_ref.rollout.agent.single_response_max_tokens=9000', /more than the budget/],
    ['trainer.resume_mode=resume_path', /needs trainer\.resume_from_path/],
    ['actor_rollout_ref.rollout.val_kwargs.do_sample=true', /temperature > 0/],
    ['actor_rollout_ref.rollout.val_kwargs.n=2', /would be equal/],
    ['trainer.val_only=true', /nothing to validate on/],
  ])('refuses %s', (item, message) => {
    expect(() => load(item)).toThrow(message);
  });
});

describe('the resolved configuration', () => {
  it('prints as YAML that loads to the same', () => {
    const { config } = loadConfig({ file: join(root, 'configs/frame_thinker.yaml') });
    const again = loadConfig({ file: yaml(printResolved(config)) });
    expect(again.config).toEqual(config);
  });

  it('accepts the original training script verbatim and lists what has no effect', () => {
    const args = readFileSync(join(root, 'tests/fixtures/agent/train_script.args'), 'utf8').trim().split('\n');
    const loaded = loadConfig({ overrides: args, cores: 2 });
    expect(loaded.config.actor_rollout_ref.actor.optim.lr).toBe(5e-7);
    expect(loaded.batches).toMatchObject({ trajectories: 256, optimizerSteps: 1, microBatchesPerMiniBatch: 128 });
    expect(loaded.withoutEffect.map((item) => item.key)).toContain('actor_rollout_ref.rollout.gpu_memory_utilization');
    expect(loaded.withoutEffect.every((item) => item.reason.length > 0)).toBe(true);
    expect(loaded.workers).toBe(2);
    expect(loaded.notes.join()).toMatch(/swanlab is not available/);
    expect(loaded.notes.join()).toMatch(/8 asked .* 2 run: this machine has 2 cores/);
  });

  it('loads every file in configs/', () => {
    const files = readdirSync(join(root, 'configs'), { recursive: true, encoding: 'utf8' }).filter((f) =>
      f.endsWith('.yaml'),
    );
    expect(files.length).toBeGreaterThanOrEqual(3);
    for (const file of files) expect(loadConfig({ file: join(root, 'configs', file) }).config.trainer).toBeDefined();
  });

  it('names the rendered files where the user named none', () => {
    const { config } = load('data.synth={seed: 3}', 'data.val_files=mine.jsonl');
    expect(config.data.train_files).toEqual(['data/synth/3/train.jsonl']);
    expect(config.data.val_files).toEqual(['mine.jsonl']);
    expect(config.data.synth?.test_videos).toBe(10);
  });
});

describe('the table of keys', () => {
  const keys = keysOf(trainSchema);
  const leaves = (node: unknown, path: string[] = []): string[] =>
    typeof node === 'object' && node !== null && !Array.isArray(node) && Object.keys(node).length > 0
      ? Object.entries(node).flatMap(([key, child]) => leaves(child, [...path, key]))
      : [path.join('.')];

  it('has every key of the resolved configuration, described, with a reason where it does not act', () => {
    const listed = new Set(keys.map((info) => info.key));
    expect(leaves(loadConfig({}).config).filter((key) => !listed.has(key))).toEqual([]);
    expect(keys.filter((info) => info.description.length < 4).map((info) => info.key)).toEqual([]);
    expect(keys.filter((info) => info.effect !== 'acts' && !info.reason).map((info) => info.key)).toEqual([]);
  });

  it('refuses a key that does not say what it does, wherever it is', () => {
    const block = z.object({ bare: z.number() }).nullable();
    expect(() => keysOf(z.object({ data: z.object({ synth: block }) }))).toThrow(
      /does not say what data\.synth\.bare does/,
    );
  });

  it('is in the JSON schema', () => {
    const text = JSON.stringify(configJsonSchema());
    expect(text).toContain('"effect":"without-effect"');
    expect(parse(text).properties.trainer.properties.save_freq.description).toMatch(/steps between checkpoints/);
  });
});
