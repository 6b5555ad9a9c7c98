import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openHfFolder } from '@frame-thinker/checkpoint';
import { compareHfFolders, type MergeOptions, mergeCheckpoint } from '@frame-thinker/merge';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const python = '.venv/bin/python';
const root = mkdtempSync(join(tmpdir(), 'merge-made-'));
afterAll(() => rmSync(root, { recursive: true }));
const at = (...parts: string[]) => join(root, ...parts);

const merge = (name: string, options: Partial<MergeOptions> = {}) =>
  mergeCheckpoint({
    backend: 'fsdp',
    localDir: at(name, 'checkpoint'),
    hfModelPath: at(name, 'base'),
    targetDir: at(name, 'merged'),
    dtype: 'keep',
    ...options,
  });

const lacks = existsSync(python) ? null : `needs ${python} with tests/requirements.txt`;

describe('checkpoints that torch writes', () => {
  beforeAll(() => {
    if (lacks === null) execFileSync(python, ['tests/golden/merge_made.py', root], { stdio: 'pipe' });
  }, 400_000);

  it.for<[string, string, Partial<MergeOptions>]>([
    ['sharded-fp32', 'ShardedTensors', {}],
    ['sharded-bf16-empty', 'ShardedTensors of which some ranks hold nothing', {}],
    ['value-head', "Megatron's value head and padded vocabulary", { backend: 'megatron', isValueModel: true }],
    ['vision', "Megatron's Qwen2.5-VL", { backend: 'megatron' }],
  ])('%s: %s merge to what was cut', async ([name, _what, options], { skip }) => {
    if (lacks !== null) return skip(lacks);
    await merge(name, options);
    const { equal, differences } = compareHfFolders(at(name, 'merged'), at(name, 'expected'));
    expect(differences).toEqual([]);
    expect(equal).toBeGreaterThan(10);
  });

  // Half a unit in the last place of each dtype, relative to the value.
  it.for<[string, number]>([
    ['lora-fp32', 2 ** -24],
    ['lora-bf16', 2 ** -8],
  ])('%s: is folded as in double precision', async ([name, unit], { skip }) => {
    if (lacks !== null) return skip(lacks);
    await merge(name);
    const [found, expected] = [openHfFolder(at(name, 'merged')), openHfFolder(at(name, 'expected'))];
    try {
      expect([...found.names].sort()).toEqual([...expected.names].sort());
      for (const tensor of found.names) {
        const [values, truth] = [found.read(tensor), expected.readRaw(tensor).data as Float64Array];
        expect(values.length).toBe(truth.length);
        const worst = values.reduce((most, v, i) => Math.max(most, Math.abs(v - truth[i]!) / Math.abs(truth[i]!)), 0);
        expect(worst, tensor).toBeLessThanOrEqual(unit * 1.0001);
      }
    } finally {
      found.close();
      expected.close();
    }
  });
});

/** Both were cut from the same weights (as bfloat16), one by torch 2.6, one by 2.15. */
it.each([
  ['qwen2_w4_fp32_uneven', 't26_qwen2_w4_uneven_fp32'],
  ['qwen2_hsdp2x2_fp32', 't26_qwen2_hsdp2x2_fp32'],
])('ranks of %s by different versions of torch merge together', async (newer, older) => {
  const fixtures = 'tests/fixtures/merge/fsdp';
  const [localDir, mixed, alone] = [at(newer, 'mixed'), at(newer, 'out'), at(newer, 'alone')];
  mkdirSync(localDir, { recursive: true });
  for (const name of readdirSync(join(fixtures, newer))) {
    const from = /_rank_[02]\.pt$/.test(name) ? older : newer;
    cpSync(join(fixtures, from, name), join(localDir, name), { recursive: true });
    if (name.endsWith('.pt')) {
      const other = readFileSync(join(fixtures, older, name));
      expect(other.equals(readFileSync(join(fixtures, newer, name)))).toBe(false);
    }
  }
  const hfModelPath = join(localDir, 'huggingface');
  const common = { backend: 'fsdp', hfModelPath, dtype: 'bf16' } as const;
  await mergeCheckpoint({ ...common, localDir, targetDir: mixed });
  await mergeCheckpoint({ ...common, localDir: join(fixtures, newer), targetDir: alone });
  expect(compareHfFolders(mixed, alone)).toEqual({ equal: 27, differences: [] });
});
