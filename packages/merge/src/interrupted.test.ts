import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pickleDict } from '@frame-thinker/pickle';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type MergeOptions, mergeCheckpoint } from './merge.ts';
import { TorchFile } from './testing/torch-file.ts';

const ROOT = join(import.meta.dirname, '../../..');

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'interrupted-'));
  for (const folder of ['actor', 'base', 'out']) mkdirSync(join(root, folder));
  writeFileSync(join(root, 'base/config.json'), '{}');
  writeFileSync(join(root, 'out/config.json'), 'from before');
});
afterEach(() => rmSync(root, { recursive: true }));

function writeShard(tensors: { count: number; bytes: number }): void {
  const file = new TorchFile();
  const data = new Uint8Array(tensors.bytes);
  const entries = Array.from({ length: tensors.count }, (_, i) => [`w${i}`, file.tensor('U8', [data.length], data)]);
  file.save(join(root, 'actor/model_world_size_1_rank_0.pt'), pickleDict(entries as [string, never][], true));
}

/** What was there before the merge, and nothing else. */
function expectAsBefore(): void {
  expect(readdirSync(root).sort()).toEqual(['actor', 'base', 'out']);
  expect(readFileSync(join(root, 'out/config.json'), 'utf8')).toBe('from before');
}

it.each<[string, Partial<MergeOptions>, (sizes: number[]) => boolean]>([
  ['within a tensor', {}, ([first = 0]) => first > 0],
  ['between two', {}, ([first = 0]) => first >= 80e6],
  ['while what was written is read back', { verify: true }, ([first = 0, total]) => first === total],
])('a merge that is told to end %s leaves nothing', async (_what, more, now) => {
  writeShard({ count: 2, bytes: 80e6 });
  const stop = new AbortController();
  const sizes: number[] = [];
  const merging = mergeCheckpoint({
    backend: 'fsdp',
    localDir: join(root, 'actor'),
    hfModelPath: join(root, 'base'),
    targetDir: join(root, 'out'),
    dtype: 'keep',
    ...more,
    onBytes: (bytes, total) => {
      sizes.push(bytes);
      if (now([bytes, total])) stop.abort(new Error('enough'));
    },
    signal: stop.signal,
  });
  await expect(merging).rejects.toThrow('enough');
  expectAsBefore();
  if (_what === 'within a tensor') expect(sizes.at(-1)).toBeLessThan(75e6);
});

it.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s ends the command with %d and leaves nothing', { timeout: 60_000 }, async (signal, code) => {
  writeShard({ count: 15_000, bytes: 1 });
  const flags = { 'local-dir': 'actor', 'hf-model-path': 'base', 'target-dir': 'out' };
  const child = spawn(
    process.execPath,
    [
      ...['--import', 'tsx', join(ROOT, 'packages/cli/src/main.ts'), 'merge'],
      ...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, join(root, value)]),
    ],
    { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  child.stderr.on('data', (text) => {
    said += text;
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  while (child.exitCode === null && !readdirSync(root).some((name) => name.startsWith('.out.'))) await sleep(2);
  child.kill(signal);
  expect(await ended).toBe(code);
  expect(said).toContain(`merge: stopped; ${join(root, 'out')} is as it was before`);
  expectAsBefore();
});
