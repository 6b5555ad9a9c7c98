/**
 * @file `npx tsx scripts/profile.ts [--config FILE] [--steps N] [key=value …]`: where the processor time of a training goes, in the
 * controller and the worker: from the command to the first step, in the first step, and in the last one. Linux alone.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { InputError, RunError } from '@frame-thinker/core';
import { categoryOf, type Frame } from './profile/categories.ts';

const root = join(import.meta.dirname, '..');
const PHASES = ['start', 'first step', 'last step'] as const;
type Phase = (typeof PHASES)[number];

/** What record.cjs writes of a thread. Times of the profile are microseconds. */
interface ThreadRecord {
  argv: string[];
  thread: number;
  /** Milliseconds since 1970. */
  startedAt: number;
  threadSeconds: number;
  processSeconds: number;
  profile: {
    nodes: { id: number; callFrame: Frame; children?: number[] }[];
    startTime: number;
    samples: number[];
    timeDeltas: number[];
  };
}

/** When the steps of a run began, and when the last one was done, in milliseconds since 1970. */
function stepTimes(dir: string): number[] {
  const lines = readFileSync(join(dir, 'events.jsonl'), 'utf8').trim().split('\n');
  const events = lines.map((line) => JSON.parse(line) as { time: string; kind: string; step: number; phase?: string });
  const starts = new Map<number, number>();
  for (const { kind, step, time } of events)
    if (kind === 'phase' && !starts.has(step)) starts.set(step, Date.parse(time));
  const end = events.find(({ phase }) => phase === 'save_checkpoint');
  return [...starts.values(), Date.parse(end!.time)];
}

/** Milliseconds in which a thread was not idle, by phase and category. */
function times({ profile, startedAt }: ThreadRecord, marks: readonly number[]): Map<Phase, Map<string, number>> {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const parents = new Map(profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const categories = new Map<number, string | undefined>();
  for (const { id } of profile.nodes) {
    const stack: Frame[] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) stack.push(nodes.get(at)!.callFrame);
    categories.set(id, categoryOf(stack));
  }
  const phaseAt = (time: number): Phase | undefined => {
    if (time < marks[0]!) return 'start';
    if (time < marks[1]!) return 'first step';
    return time >= marks.at(-2)! && time < marks.at(-1)! ? 'last step' : undefined;
  };
  const found = new Map<Phase, Map<string, number>>(PHASES.map((phase) => [phase, new Map()]));
  let time = 0;
  for (const [i, id] of profile.samples.entries()) {
    time += profile.timeDeltas[i]! / 1000;
    const phase = phaseAt(startedAt + time);
    const category = categories.get(id);
    if (!phase || category === undefined) continue;
    const sums = found.get(phase)!;
    sums.set(category, (sums.get(category) ?? 0) + profile.timeDeltas[i]! / 1000);
  }
  return found;
}

function train(
  config: string,
  steps: number,
  settings: readonly string[],
): { records: ThreadRecord[]; marks: number[] } {
  const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-profile-'));
  const dir = join(folder, 'run');
  const words = [
    ...['--import', 'tsx', 'packages/cli/src/main.ts', 'train', '--config', config, `trainer.default_local_dir=${dir}`],
    ...[`trainer.total_training_steps=${steps}`, 'trainer.val_before_train=false', 'trainer.test_freq=-1'],
    ...['data.val_files=[]', 'trainer.save_freq=-1', ...settings],
  ];
  const env = {
    ...process.env,
    NODE_OPTIONS: `--require=${join(root, 'scripts/profile/record.cjs')}`,
    PROFILE_FOLDER: folder,
  };
  try {
    const run = spawnSync(process.execPath, words, { cwd: root, encoding: 'utf8', env });
    if (run.status !== 0) throw new RunError(`profile: training ended with ${run.status}: ${run.stderr.trim()}`);
    const files = readdirSync(folder).filter((file) => file.endsWith('.json'));
    const records = files.map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as ThreadRecord);
    return { records, marks: stepTimes(dir) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const nameOf = ({ argv, thread }: ThreadRecord): string => {
  if (argv.includes('train')) return 'controller';
  return thread === 0 ? 'worker, main thread' : 'worker, engine thread';
};

function print({ records, marks }: ReturnType<typeof train>): void {
  const processes = records.filter(({ thread }) => thread === 0);
  for (const record of processes)
    console.log(`${nameOf(record).split(',')[0]}: ${record.processSeconds.toFixed(1)} CPU s, all threads`);
  console.log(
    `wall: first step ${((marks[1]! - marks[0]!) / 1000).toFixed(1)} s, last ${((marks.at(-1)! - marks.at(-2)!) / 1000).toFixed(1)} s`,
  );
  const rows = records.flatMap((record) =>
    [...times(record, marks)].flatMap(([phase, sums]) =>
      [...sums].map(([category, ms]) => ({ phase, thread: nameOf(record), category, ms })),
    ),
  );
  for (const phase of PHASES) {
    const own = rows.filter((row) => row.phase === phase).sort((a, b) => b.ms - a.ms);
    console.log(`\n${phase}: ${own.reduce((sum, { ms }) => sum + ms, 0).toFixed(0)} ms in three threads\n`);
    console.log('| ms | thread | what |\n|---|---|---|');
    for (const { ms, thread, category } of own)
      if (ms >= 10) console.log(`| ${ms.toFixed(0)} | ${thread} | ${category} |`);
  }
}

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      config: { type: 'string', default: 'configs/frame_thinker.yaml' },
      steps: { type: 'string', default: '3' },
    },
  });
  if (process.platform !== 'linux') throw new InputError('profile: reads the times of threads, which only Linux shows');
  const steps = Number(values.steps);
  if (!(Number.isInteger(steps) && steps > 1))
    throw new InputError(`profile: --steps ${values.steps}: expected a whole number above 1`);
  print(train(values.config, steps, positionals));
} catch (error) {
  console.error(error instanceof InputError || error instanceof RunError ? error.message : error);
  process.exitCode = error instanceof InputError ? 2 : 1;
}
