/** @file Ctrl-C, SIGTERM and a second Ctrl-C: what is saved, how the run ends, and that it goes on as if undisturbed. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import {
  contentOf,
  eventsOf,
  familyOf,
  STEPS,
  savedSteps,
  start,
  survivors,
  trainWords,
  untilPhase,
} from './training-run.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-signals-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
const whole = contentOf(inject('undisturbed'));

const commandOf = (pid: number): string => readFileSync(`/proc/${pid}/cmdline`, 'utf8');

describe('a run that is asked to end', () => {
  const dir = join(runs, 'stopped');
  // Nothing but the signal makes it save.
  const words = trainWords(dir, 'trainer.save_freq=-1');

  it('by Ctrl-C, saves the last finished step and ends with 130', async () => {
    const run = start(words);
    await untilPhase(run, dir, { step: 2, phase: 'gen' });
    const family = familyOf(run.child.pid!);
    run.child.kill('SIGINT');
    expect(await run.ended).toEqual({ code: 130, signal: null });
    expect(run.lines.join('\n')).toMatch(
      /SIGINT: saving the last finished step[\s\S]*stopped at step 1 of 4 and saved/,
    );
    expect(savedSteps(dir)).toEqual([1]);
    expect(await survivors(family, 10_000)).toEqual([]);
  });

  it('by Ctrl-C in a terminal, through pnpm, saves too', async (context) => {
    const pnpm = process.env.npm_execpath ?? '';
    if (!pnpm.includes('pnpm')) context.skip('needs to be started by pnpm');
    const own = join(runs, 'terminal');
    const args = trainWords(own, 'trainer.save_freq=-1');
    // A terminal sends the signal to all of a group, and pnpm passes it on besides.
    const child = spawn(process.execPath, [pnpm, ...args], { cwd: root, detached: true, stdio: 'pipe' });
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => said.push(String(text)));
    const ended = new Promise((resolve) => child.once('close', resolve));
    await expect.poll(() => eventsOf(own).some(({ step }) => step === 2), { timeout: 60_000, interval: 5 }).toBe(true);
    // A busy machine: the trainer takes the signal late. What started it must not lose patience.
    const trainer = familyOf(child.pid!).findLast((pid) => commandOf(pid).includes('cli/src/main.ts'))!;
    process.kill(trainer, 'SIGSTOP');
    process.kill(-child.pid!, 'SIGINT');
    await new Promise((resolve) => setTimeout(resolve, 300));
    process.kill(trainer, 'SIGCONT');
    await ended;
    expect(said.join('')).toMatch(/SIGINT: saving the last finished step[\s\S]*stopped at step [12] of 4 and saved/);
    expect(savedSteps(own)).toHaveLength(1);
  });

  it('by SIGTERM, ends the step it is in and ends with 143', async () => {
    const run = start(words);
    await untilPhase(run, dir, { step: 2, phase: 'update_actor' });
    run.child.kill('SIGTERM');
    expect(await run.ended).toEqual({ code: 143, signal: null });
    expect(run.lines.join('\n')).toMatch(/SIGTERM: [\s\S]*stopped at step 2 of 4 and saved/);
    expect(savedSteps(dir)).toEqual([1, 2]);
  });

  it('twice, ends at once, even if a worker hangs', async () => {
    const run = start(words);
    await untilPhase(run, dir, { step: 3, phase: 'gen' });
    const [main, ...workers] = familyOf(run.child.pid!);
    for (const pid of workers) process.kill(pid, 'SIGSTOP');
    process.kill(main!, 'SIGINT');
    await run.line(/^SIGINT: .* once more ends at once/);
    // The same press of a key may come several times.
    process.kill(main!, 'SIGINT');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(run.child.exitCode).toBe(null);
    process.kill(main!, 'SIGINT');
    expect(await run.ended).toEqual({ code: 130, signal: null });
    expect(eventsOf(dir).at(-1)).toMatchObject({ kind: 'phase', step: 3, phase: 'gen' });
    expect(savedSteps(dir)).toEqual([1, 2]);
    expect(await survivors(workers, 10_000)).toEqual([]);
  });

  it('and is started again, is the undisturbed run', async () => {
    expect((await runCommand(words)).code).toBe(0);
    const { checkpoints, ...rest } = contentOf(dir);
    expect(Object.keys(checkpoints).map(Number)).toEqual([1, 2, STEPS]);
    expect(whole).toMatchObject({ checkpoints, ...rest });
  });
});
