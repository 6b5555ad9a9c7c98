/** @file A small training run as a user starts it: what it leaves, where it is, and how to end it from outside. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, type Started, start } from '../e2e/processes.ts';

/** Steps of the run that the faults are compared with. */
export const STEPS = 4;

/** Words of the command: the smallest configuration, a checkpoint a step, no validation. */
export const trainWords = (dir: string, ...more: string[]): string[] => [
  ...['train', '--config', join(root, 'configs/debug/tiny.yaml'), `trainer.default_local_dir=${dir}`],
  ...[`trainer.total_training_steps=${STEPS}`, 'trainer.val_before_train=false', 'data.val_max_samples=1'],
  ...more,
];

export function jsonLines<T>(file: string): T[] {
  if (!existsSync(file)) return [];
  // A line without its end is being written.
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as T);
}

/** Metrics without what depends on the clock. */
export const metricsOf = (dir: string): Record<string, number>[] =>
  jsonLines<Record<string, number>>(join(dir, 'metrics.jsonl')).map((line) =>
    Object.fromEntries(Object.entries(line).filter(([key]) => !/^(timing|perf)/.test(key))),
  );

/** What was sampled, by step and file: ids, masks, log-probs and advantages bit for bit, and the texts. */
export function trajectoriesOf(dir: string): Record<string, unknown> {
  const folder = join(dir, 'trajectories/train');
  const found = (existsSync(folder) ? readdirSync(folder) : []).sort().map((name) => {
    const file = join(folder, name);
    if (!name.endsWith('.jsonl')) return [name, createHash('sha256').update(readFileSync(file)).digest('hex')] as const;
    return [name, jsonLines<{ uid: string; text: string }>(file).map(({ uid, text }) => [uid, text])] as const;
  });
  return Object.fromEntries(found);
}

/** sha256 of every file of a checkpoint: weights, moments, counters, sampler position. */
export const checkpointHashes = (dir: string, step: number): Record<string, string> => {
  const { files } = JSON.parse(readFileSync(join(dir, `global_step_${step}/manifest.json`), 'utf8')) as {
    files: Record<string, { sha256: string }>;
  };
  return Object.fromEntries(Object.entries(files).map(([name, { sha256 }]) => [name, sha256]));
};

/** The steps of the checkpoints that are there. */
export const savedSteps = (dir: string): number[] =>
  (existsSync(dir) ? readdirSync(dir) : [])
    .flatMap((name) => /^global_step_(\d+)$/.exec(name)?.slice(1).map(Number) ?? [])
    .sort((a, b) => a - b);

/** The step that a resume would go on from; 0 when there is none. */
export function namedStep(dir: string): number {
  const file = join(dir, 'latest_checkpointed_iteration.txt');
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
}

/** Everything that a resumed run must have in common with the undisturbed one. */
export const contentOf = (dir: string) => ({
  checkpoints: Object.fromEntries(savedSteps(dir).map((step) => [step, checkpointHashes(dir, step)])),
  metrics: metricsOf(dir),
  trajectories: trajectoriesOf(dir),
});

export interface RunEvent {
  time: string;
  kind: 'start' | 'phase' | 'checkpoint';
  step: number;
  phase?: string;
}
export const eventsOf = (dir: string): RunEvent[] => jsonLines<RunEvent>(join(dir, 'events.jsonl'));

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves when `found` is true; looks every `ms`. Rejects when the process ends first. */
export async function until(run: Started, found: () => boolean, ms = 2): Promise<void> {
  let over = false;
  void run.ended.then(() => {
    over = true;
  });
  while (!found()) {
    if (over) throw new Error(`the run ended before it came to this point:\n${run.lines.slice(-20).join('\n')}`);
    await pause(ms);
  }
}

/** Resolves when a run that writes to `dir` begins a phase of a step, as its events say. */
export function untilPhase(run: Started, dir: string, { step, phase }: { step: number; phase: string }): Promise<void> {
  const seen = eventsOf(dir).length;
  return until(run, () =>
    eventsOf(dir)
      .slice(seen)
      .some((event) => event.kind === 'phase' && event.step === step && event.phase === phase),
  );
}

/** Moments of a save, in order, by what is in the run folder. */
export const SAVE_MOMENTS = ['folder', 'model', 'optim', 'manifest', 'renamed', 'named'] as const;
export type SaveMoment = (typeof SAVE_MOMENTS)[number];

export function reached(dir: string, step: number, moment: SaveMoment): boolean {
  if (moment === 'named') return namedStep(dir) === step;
  if (moment === 'renamed') return existsSync(join(dir, `global_step_${step}`));
  const temporary = readdirSync(dir).find((name) => name.startsWith(`.global_step_${step}.`) && name.endsWith('.tmp'));
  if (temporary === undefined) return false;
  if (moment === 'folder') return true;
  if (moment === 'manifest') return existsSync(join(dir, temporary, 'manifest.json'));
  const actor = join(dir, temporary, 'actor');
  return existsSync(actor) && readdirSync(actor).some((name) => name.startsWith(moment));
}

/** Pids of a process and all that it started. */
export function familyOf(pid: number): number[] {
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid ? [Number(name)] : [];
      } catch {
        return []; // It ended meanwhile.
      }
    });
  return [pid, ...children.flatMap(familyOf)];
}

function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z');
  } catch {
    return false;
  }
}

/** Folders of bulk data that a process made. */
export const scratchOf = (pid: number): string[] =>
  ['/dev/shm', tmpdir()]
    .filter((parent) => existsSync(parent))
    .flatMap((parent) => readdirSync(parent).map((name) => join(parent, name)))
    .filter((path) => path.includes(`/frame-thinker-${pid}-`));

/** Those that are still there after `ms`. */
export async function survivors(pids: readonly number[], ms: number): Promise<number[]> {
  const end = performance.now() + ms;
  while (pids.some(isAlive) && performance.now() < end) await pause(20);
  return pids.filter(isAlive);
}

/** Kills a run's main process as the kernel or a scheduler would; returns all processes that it was. */
export async function killRun(run: Started): Promise<number[]> {
  const family = familyOf(run.child.pid!);
  run.child.kill('SIGKILL');
  await run.ended;
  return family;
}

export { type Started, start };
