import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import { afterEach, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { checkResumable, configChanges, writeConfig } from './run-folder.ts';

const dir = mkdtempSync(join(tmpdir(), 'run-folder-'));
afterEach(() => rmSync(join(dir, 'config.yaml'), { force: true }));

const load = (...overrides: string[]) => loadConfig({ overrides }).config;
type Block = Record<string, unknown>;

/** The saved configuration with some keys taken out or changed, as an older version would have left it. */
function saveOlder(config: ReturnType<typeof load>, edit: (tree: Record<string, Block>) => void): void {
  writeConfig(dir, config);
  const tree = parse(readFileSync(join(dir, 'config.yaml'), 'utf8')) as Record<string, Block>;
  edit(tree);
  writeFileSync(join(dir, 'config.yaml'), stringify(tree));
}

it('a saved configuration that lacks newer keys means their defaults, those that follow other keys too', () => {
  const config = load('data.max_response_length=64', 'data.synth={seed: 3}');
  saveOlder(config, (tree) => {
    delete tree.ray;
    delete tree.data!.skip_broken_rows;
    delete (tree.data!.synth as Block).test_questions;
    const rollout = tree.actor_rollout_ref!.rollout as { agent: Block; val_kwargs?: Block };
    delete rollout.agent.single_response_max_tokens;
    delete rollout.val_kwargs;
  });
  expect(checkResumable(dir, config)).toEqual([]);
  expect(() => checkResumable(dir, { ...config, data: { ...config.data, skip_broken_rows: true } })).toThrow(
    'data.skip_broken_rows: false → true',
  );
});

it('refuses other data, lists what may change, and passes over keys that are there no more', () => {
  const config = load('trainer.save_freq=2');
  saveOlder(config, (tree) => {
    tree.data!.once_there = { x: 1 };
    tree.custom_reward_function!.reward_kwargs = { x: 1 };
  });
  const now = load('trainer.save_freq=3', 'custom_reward_function.reward_kwargs={x: 1}', 'engine.threads=2');
  expect(configChanges(dir, now).map(({ key }) => key)).toEqual(['engine.threads', 'trainer.save_freq']);
  expect(checkResumable(dir, now)).toEqual(['engine.threads: 0 → 2', 'trainer.save_freq: 2 → 3']);
  expect(() => checkResumable(dir, { ...now, custom_reward_function: load().custom_reward_function })).toThrow(
    /custom_reward_function\.reward_kwargs\.x: 1 → absent/,
  );
});

it('says so when the saved configuration cannot be read', () => {
  writeFileSync(join(dir, 'config.yaml'), 'data: [');
  expect(() => checkResumable(dir, load())).toThrow(/config\.yaml:1:\d+ /);
});
