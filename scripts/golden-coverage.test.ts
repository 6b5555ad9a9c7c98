import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { listFixtures, shortfalls, uncovered } from './golden-coverage.ts';

const folder = mkdtempSync(join(tmpdir(), 'golden-'));
afterAll(() => rmSync(folder, { recursive: true }));

it('lists fixtures and names those that have neither a line nor code', () => {
  mkdirSync(join(folder, 'agent'));
  mkdirSync(join(folder, 'qwen/model'), { recursive: true });
  for (const name of [
    'agent/README.md',
    'agent/a.json',
    'agent/b.json',
    'qwen/p.json',
    'qwen/p.safetensors',
    'qwen/lone.safetensors',
  ])
    writeFileSync(join(folder, name), '');
  const fixtures = listFixtures(folder);
  expect(fixtures).toEqual(['agent/a.json', 'agent/b.json', 'qwen/lone.safetensors', 'qwen/model', 'qwen/p.json']);
  const lines = ['golden agent/a.json: 5 of 5', 'golden qwen/model/weights: 1 of 1'];
  const sources = "read('qwen/p.json'); // lone";
  expect(uncovered(fixtures, { lines, sources })).toEqual(['agent/b.json', 'qwen/lone.safetensors']);
});

it('counts rows that are not equal once: as the failed test, or as the file where no test failed', () => {
  const lines = ['golden agent/a.json: 5 of 5', 'golden agent/b.json: 4 of 5'];
  expect(shortfalls(lines, [])).toEqual(['golden agent/b.json: only 4 of 5']);
  expect(shortfalls(lines, ['agent.test.ts > b'])).toEqual([]);
});
