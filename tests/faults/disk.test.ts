/** @file A disk that runs full while a checkpoint is saved, and damaged checkpoints: one line, nothing lost, the older one resumes. */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@frame-thinker/core';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { runCommand } from '../e2e/processes.ts';
import { checkpointHashes, contentOf, metricsOf, STEPS, savedSteps, trainWords } from './training-run.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-disk-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
const undisturbed = inject('undisturbed');
const whole = contentOf(undisturbed);

/** Runs to the end and expects exit code 2 with one line of error, which is returned. */
async function refusal(words: readonly string[]): Promise<string> {
  const { code, lines } = await runCommand(words);
  expect({ code, lines: lines.filter((line) => /^\s+at |bug of Frame Thinker/.test(line)) }).toEqual({
    code: 2,
    lines: [],
  });
  return lines.at(-1)!;
}

function bytesOf(dir: string): number {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' }).reduce(
    (sum, name) => sum + statSync(join(dir, name)).size,
    0,
  );
}

function fill(file: string): void {
  const handle = openSync(file, 'w');
  try {
    for (const size of [1 << 20, 1 << 12, 1]) {
      try {
        for (;;) writeSync(handle, new Uint8Array(size));
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
      }
    }
  } finally {
    closeSync(handle);
  }
}

const mount = (dir: string, options: string): boolean =>
  spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'none', dir]).status === 0;

describe('a full disk', () => {
  it('ends the run with one line; the checkpoint before is whole, and with room it is the undisturbed run', async ({
    skip,
  }) => {
    const disk = join(runs, 'disk');
    mkdirSync(disk);
    const room = Math.round(1.6 * bytesOf(join(undisturbed, 'global_step_1')));
    if (!mount(disk, `size=${room}`)) skip('needs the right to mount a small file system');
    try {
      const dir = join(disk, 'run');
      expect(await refusal(trainWords(dir))).toMatch(
        /\/run\/global_step_2\b.*: no space left on the disk; nothing already written is lost/,
      );
      expect(savedSteps(dir)).toEqual([1]);
      // A step's metrics come before its checkpoint: no kill in between can lose them.
      expect(metricsOf(dir).map(({ step }) => step)).toEqual([1, 2]);
      expect(readdirSync(dir).filter((name) => name.endsWith('.tmp'))).toEqual([]);
      expect(checkpointHashes(dir, 1)).toEqual(whole.checkpoints[1]);

      fill(join(disk, 'filler'));
      expect(await refusal(trainWords(dir))).toMatch(/no space left/);
      expect(checkpointHashes(dir, 1)).toEqual(whole.checkpoints[1]);

      rmSync(join(disk, 'filler'));
      expect(mount(disk, `remount,size=${10 * room}`)).toBe(true);
      const resumed = await runCommand(trainWords(dir));
      expect(resumed.lines.join('\n')).toContain('global_step_1 (step 1 of');
      expect(resumed.code).toBe(0);
      expect(contentOf(dir)).toEqual(whole);
    } finally {
      spawnSync('umount', ['-l', disk]);
    }
  });
});

describe('a damaged checkpoint', () => {
  it('is refused by file and tensor, with the newest whole one offered, from which it is the undisturbed run', async () => {
    const dir = join(runs, 'damaged');
    cpSync(undisturbed, dir, { recursive: true });
    rmSync(join(dir, `global_step_${STEPS}`), { recursive: true });
    writeFileSync(join(dir, 'latest_checkpointed_iteration.txt'), `${STEPS - 1}\n`);

    const rng = createRng(7, 'permute');
    const optim = join(dir, `global_step_${STEPS - 1}/actor/optim_world_size_1_rank_0.safetensors`);
    const bytes = readFileSync(optim);
    const data = 8 + Number(bytes.readBigUInt64LE());
    bytes[data + rng.below(bytes.length - data)]! ^= 1 << rng.below(8);
    writeFileSync(optim, bytes);
    const offer = (step: number): string =>
      `trainer.resume_mode=resume_path trainer.resume_from_path=${join(dir, `global_step_${step}`)}`;
    const flipped = await refusal(trainWords(dir));
    expect(flipped).toMatch(new RegExp(`^${optim}: tensor [a-z0-9_.]+\\.exp_avg(_sq)?: damaged`));
    expect(flipped.endsWith(offer(2))).toBe(true);

    const model = join(dir, 'global_step_2/actor/model_world_size_1_rank_0.safetensors');
    truncateSync(model, rng.below(statSync(model).size));
    const words = offer(2).split(' ');
    const truncated = await refusal(trainWords(dir, ...words));
    expect(truncated.startsWith(`${model}: `)).toBe(true);
    expect(truncated).toMatch(/truncated|damaged/);
    expect(truncated.endsWith(offer(1))).toBe(true);

    expect((await runCommand(trainWords(dir, ...offer(1).split(' ')))).code).toBe(0);
    expect(contentOf(dir)).toEqual(whole);
  });
});
