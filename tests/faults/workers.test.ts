/**
 * @file Workers that are killed, hang or keep dying, out of two: what the run leaves is what an undisturbed one leaves, bit for bit,
 * or it ends and says why; no process is left behind.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import { workerEntry } from '@frame-thinker/policy-worker';
import { runTraining, workerInit } from '@frame-thinker/trainer';
import { createPool, LocalTransport, type WorkerProcess } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import { contentOf, familyOf, killRun, scratchOf, start, survivors, trainWords, untilPhase } from './training-run.ts';

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

/** When a process started, in ticks since the machine did: pids begin anew at some time. */
const startOf = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
};

/** Pids of the workers that a process started, the oldest first. */
const workersOf = (pid: number): number[] =>
  familyOf(pid)
    .filter((one) => one !== pid && readFileSync(`/proc/${one}/cmdline`, 'latin1').includes(workerEntry))
    .sort((a, b) => startOf(a) - startOf(b));

let whole: ReturnType<typeof contentOf>;
beforeAll(async () => {
  const { code, lines } = await runCommand(words('undisturbed'));
  expect(code, lines.slice(-5).join('\n')).toBe(0);
  whole = contentOf(dirOf('undisturbed'));
  expect(Object.keys(whole.checkpoints)).toEqual(['1', '2', '3']);
  expect(whole.metrics.map((line) => line['actor/grad_norm']! > 0)).toEqual([true, true, true]);
});

/** A signal for the worker of this rank, when it has been sent the `nth` call of a method (the first one is 1). */
interface Blow {
  rank: number;
  method: string;
  nth: number;
  signal: 'SIGKILL' | 'SIGSTOP';
}

/** Local workers, of which some get a signal while a certain call of theirs is under way. */
class Struck extends LocalTransport {
  readonly struck: number[] = [];
  readonly #blows: readonly Blow[];
  readonly #calls = new Map<string, number>();

  constructor(blows: readonly Blow[]) {
    super({ entry: workerEntry });
    this.#blows = blows;
  }

  override start(rank: number): WorkerProcess {
    const worker = super.start(rank);
    const { call } = worker;
    worker.call = (method, ...rest) => {
      const answer = call.call(worker, method, ...rest);
      const nth = (this.#calls.get(`${rank} ${method}`) ?? 0) + 1;
      this.#calls.set(`${rank} ${method}`, nth);
      const blow = this.#blows.find((one) => one.rank === rank && one.method === method && one.nth === nth);
      if (blow) {
        this.struck.push(worker.pid!);
        process.kill(worker.pid!, blow.signal);
      }
      return answer;
    };
    return worker;
  }
}

/** A run in this process with such workers. */
async function trainStruck(name: string, blows: readonly Blow[]) {
  const { config, ...loaded } = loadConfig({
    file: join(root, 'configs/debug/tiny.yaml'),
    overrides: words(name).slice(3),
    cores: 2,
  });
  const lines: string[] = [];
  const print = (line: string): void => void lines.push(...line.split('\n'));
  const transport = new Struck(blows);
  // Long enough for a worker that starts while the machine is busy.
  const watchdog = { quietMs: 1_000, hungMs: 10_000, warn: print };
  const startWorker = () => createPool({ transport, init: workerInit(config, 2), workers: 2, watchdog });
  const code = await runTraining({ loaded: { config, ...loaded }, print, startWorker });
  expect(code, lines.slice(-5).join('\n')).toBe(0);
  expect(transport.struck).toHaveLength(blows.length);
  return { lines, struck: transport.struck };
}

describe('a run of two workers', () => {
  it('has the same numbers when one is killed in a rollout, in an update and while its weights are saved', async () => {
    const { lines } = await trainStruck('killed', [
      { rank: 0, method: 'rollout', nth: 1, signal: 'SIGKILL' },
      { rank: 1, method: 'backward', nth: 3, signal: 'SIGKILL' },
      { rank: 0, method: 'save', nth: 1, signal: 'SIGKILL' },
      { rank: 1, method: 'gradients_add', nth: 2, signal: 'SIGKILL' },
    ]);
    expect(lines.filter((line) => / died \(SIGKILL\) in /.test(line))).toEqual([
      expect.stringMatching(/^worker 0 .* in rollout$/),
      expect.stringMatching(/^worker 1 .* in backward$/),
      expect.stringMatching(/^worker 0 .* in save$/),
      expect.stringMatching(/^worker 1 .* in gradients_add$/),
    ]);
    expect(contentOf(dirOf('killed'))).toEqual(whole);
  });

  it.each([
    { method: 'rollout', nth: 1 },
    { method: 'backward', nth: 2 },
  ])('names a worker that hangs in $method, replaces it, and has the same numbers', async (at) => {
    const name = `hung-${at.method}`;
    const { lines, struck } = await trainStruck(name, [{ ...at, rank: 1, signal: 'SIGSTOP' }]);
    const [hanging] = struck as [number];
    // On a busy machine others are quiet for a second too, and so was this one while it loaded.
    const said = lines.filter((line) => line.includes(`pid ${hanging}) has been in `) && !line.includes(' in init '));
    const named = `^worker 1 \\(pid ${hanging}\\) has been in ${at.method} for \\d+ s`;
    expect(said[0]).toMatch(new RegExp(`${named}$`));
    expect(said.find((line) => line.includes('it is ended'))).toMatch(new RegExp(`${named}: it is ended$`));
    expect(lines.some((line) => line.startsWith('worker 1 hung in '))).toBe(true);
    expect(lines).toContain('it is replaced');
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
      await untilPhase(run, dirOf('trainer'), at);
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
