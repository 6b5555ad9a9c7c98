/**
 * @file Workers that are killed, hang or keep dying, out of two: what the run leaves is what an undisturbed one leaves, bit for bit,
 * or it ends and says why; no process is left behind.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import { workerEntry } from '@frame-thinker/policy-worker';
import { runTraining, workerInit } from '@frame-thinker/trainer';
import { createLocalPool } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import {
  contentOf,
  eventsOf,
  familyOf,
  jsonLines,
  killRun,
  type Started,
  start,
  survivors,
  trainWords,
  untilPhase,
} from './training-run.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-workers-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));
const dirOf = (name: string): string => join(runs, name);

const SETTINGS = [
  ...[
    'trainer.n_gpus_per_node=2',
    'trainer.total_training_steps=3',
    'engine.threads=1',
    'actor_rollout_ref.rollout.n=4',
  ],
  // Less than the rows of a step: both workers have some.
  ...['actor_rollout_ref.rollout.slots=4', 'actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1'],
];
const words = (name: string, ...more: string[]): string[] => trainWords(dirOf(name), ...SETTINGS, ...more);

/** Pids of the workers that a process started, the oldest first. */
const workersOf = (pid: number): number[] =>
  familyOf(pid)
    .filter((one) => one !== pid && readFileSync(`/proc/${one}/cmdline`, 'latin1').includes(workerEntry))
    .sort((a, b) => a - b);

/** Folders of bulk data that a process made. */
const scratchOf = (pid: number): string[] =>
  ['/dev/shm', tmpdir()]
    .filter((parent) => existsSync(parent))
    .flatMap((parent) => readdirSync(parent).map((name) => join(parent, name)))
    .filter((path) => path.includes(`/frame-thinker-${pid}-`));

let whole: ReturnType<typeof contentOf>;
beforeAll(async () => {
  const { code, lines } = await runCommand(words('undisturbed'));
  expect(code, lines.slice(-5).join('\n')).toBe(0);
  whole = contentOf(dirOf('undisturbed'));
  expect(Object.keys(whole.checkpoints)).toEqual(['1', '2', '3']);
  expect(whole.metrics.map((line) => line['actor/grad_norm']! > 0)).toEqual([true, true, true]);
});

/** Waits until a phase is there and a third of what it took undisturbed has passed. */
async function within(run: Started, name: string, at: { step: number; phase: string }): Promise<void> {
  await untilPhase(run, dirOf(name), at);
  const timings = jsonLines<Record<string, number>>(join(dirOf('undisturbed'), 'metrics.jsonl'));
  const seconds = timings[at.step - 1]![`timing_s/${at.phase}`]!;
  await new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / 3));
}

describe('a run of two workers', () => {
  it('has the same numbers when one is killed in a rollout, in an update and while its weights are saved', async () => {
    const run = start(words('killed'));
    await within(run, 'killed', { step: 1, phase: 'gen' });
    process.kill(workersOf(run.child.pid!)[0]!, 'SIGKILL');
    // The older one is worker 1 now.
    await within(run, 'killed', { step: 2, phase: 'update_actor' });
    process.kill(workersOf(run.child.pid!)[0]!, 'SIGKILL');
    await untilPhase(run, dirOf('killed'), { step: 2, phase: 'save_checkpoint' });
    process.kill(workersOf(run.child.pid!)[0]!, 'SIGKILL');
    const { code } = await run.ended;
    const said = run.lines.filter((line) => / died \(SIGKILL\) in /.test(line));
    expect(said).toHaveLength(3);
    expect(said[0]).toMatch(/^worker 0 .* in rollout /);
    expect(said[1]).toMatch(/^worker 1 /);
    expect(said[2]).toMatch(/^worker 0 /);
    expect(code, run.lines.slice(-5).join('\n')).toBe(0);
    expect(contentOf(dirOf('killed'))).toEqual(whole);
  });

  it.each([
    { phase: 'gen', method: 'rollout' },
    { phase: 'update_actor', method: 'backward|gradients_out|gradients_add|gradients_in|apply_update' },
  ])('names a worker that hangs in $phase and its call, replaces it, and has the same numbers', async (at) => {
    const name = `hung-${at.phase}`;
    const { config, ...loaded } = loadConfig({
      file: join(root, 'configs/debug/tiny.yaml'),
      overrides: words(name).slice(3),
      cores: 2,
    });
    const lines: string[] = [];
    const print = (line: string) => void lines.push(line);
    const dir = dirOf(name);
    let over = false;
    const training = runTraining({
      loaded: { config, ...loaded },
      print,
      startWorker: () =>
        createLocalPool({
          ...{ entry: workerEntry, init: workerInit(config, 2), workers: 2 },
          // Long enough for a worker that starts while the machine is busy.
          watchdog: { quietMs: 1_000, hungMs: 6_000, warn: print },
        }),
    }).finally(() => {
      over = true;
    });
    while (!over && !eventsOf(dir).some(({ phase }) => phase === at.phase))
      await new Promise((resolve) => setTimeout(resolve, 2));
    const hanging = workersOf(process.pid)[1]!;
    process.kill(hanging, 'SIGSTOP');
    expect(await training).toBe(0);
    // On a busy machine others are quiet for a second too, and so was this one while it loaded.
    const said = lines.filter((line) => line.includes(`pid ${hanging}) has been in `) && !line.includes(' in init '));
    const named = `^worker 1 \\(pid ${hanging}\\) has been in (${at.method}) for \\d+ s`;
    expect(said[0]).toMatch(new RegExp(`${named}$`));
    expect(said.find((line) => line.includes('it is ended'))).toMatch(new RegExp(`${named}: it is ended$`));
    expect(lines.some((line) => line.startsWith('worker 1 hung in ') && line.includes('it is replaced'))).toBe(true);
    expect(await survivors([hanging], 1_000)).toEqual([]);
    expect(contentOf(dirOf(name))).toEqual(whole);
  });

  it('ends with 1 and the last lines of the log of a worker that keeps dying', async () => {
    const run = start(words('dying', 'env.registry={think_with_video: tests/faults/dying-environment.ts}'));
    await untilPhase(run, dirOf('dying'), { step: 1, phase: 'gen' });
    const family = familyOf(run.child.pid!);
    expect(await run.ended).toEqual({ code: 1, signal: null });
    const said = run.lines.join('\n');
    expect(said).toMatch(
      /worker ([01]) died \(SIGKILL\) in rollout \(log: \S+worker-\1\.log\); its last lines:\nthe camera is gone\nworker \1 died 3 times/,
    );
    expect(readFileSync(join(dirOf('dying'), 'logs/worker-0.log'), 'utf8')).toContain('the camera is gone');
    expect(await survivors(family, 5_000)).toEqual([]);
  });

  it('leaves no worker and no shared memory when the trainer is killed, in a rollout and in an update, and goes on as if undisturbed', async () => {
    for (const at of [
      { step: 1, phase: 'gen' },
      { step: 2, phase: 'update_actor' },
    ]) {
      const run = start(words('trainer'));
      await within(run, 'trainer', at);
      expect(workersOf(run.child.pid!)).toHaveLength(2);
      // The first update makes the folder.
      expect(scratchOf(run.child.pid!)).toHaveLength(at.step - 1);
      const family = await killRun(run);
      expect(await survivors(family, 10_000)).toEqual([]);
      expect(scratchOf(run.child.pid!)).toEqual([]);
    }
    const resumed = start(words('trainer'));
    expect((await resumed.ended).code).toBe(0);
    expect(scratchOf(resumed.child.pid!)).toEqual([]);
    expect(contentOf(dirOf('trainer'))).toEqual(whole);
  });
});
