import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { rewindTrajectories } from './trajectory-log.ts';

it('a resume removes later steps, and what a killed process had not finished', () => {
  const dir = mkdtempSync(join(tmpdir(), 'trajectory-log-'));
  const folder = join(dir, 'trajectories/train');
  mkdirSync(folder, { recursive: true });
  // No process has so large a number.
  for (const name of ['step_000001.jsonl', 'step_000002.jsonl', '.step_000002.jsonl.4194999.0123abcd.tmp'])
    writeFileSync(join(folder, name), '');
  rewindTrajectories(dir, 1);
  expect(readdirSync(folder)).toEqual(['step_000001.jsonl']);
  rmSync(dir, { recursive: true });
});
