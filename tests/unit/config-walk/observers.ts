/** @file What probes look at: a training run with a scripted worker, its data, its plans, its settings of a worker. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type LoadedConfig, loadConfig } from '@frame-thinker/config';
import { rayOptions, runTraining } from '@frame-thinker/trainer';
import { item } from './probe.ts';
import { scriptedWorker } from './scripted-worker.ts';

export const root = join(import.meta.dirname, '../../..');
export const scratch = mkdtempSync(join(tmpdir(), 'config-walk-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

/** Rows of text alone, which need no video; `more` is merged into each. */
export function rowsFile(name: string, count: number, more: (i: number) => object = () => ({})): string {
  const rows = Array.from({ length: count }, (_, i) => ({
    prompt: [{ role: 'user', content: `Question ${i} of ${name}: what is at 3:20?` }],
    data_source: i % 2 === 0 ? 'even' : 'odd',
    reward_model: { ground_truth: 'A' },
    extra_info: { question: `What is at 3:20?`, index: i, fps: 24, total_frames: 14_400 },
    ...more(i),
  }));
  const file = join(scratch, `${name}.jsonl`);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return file;
}

export const MODEL = join(root, 'examples/agent/base');
/** Two short steps on rows of text. */
export const RUN = [
  item('actor_rollout_ref.model.path', MODEL),
  item('data.train_files', rowsFile('train', 6)),
  'data.val_files=[]',
  item('data.system_prompt', 'none'),
  'data.train_batch_size=2',
  'data.max_prompt_length=128',
  'data.max_response_length=64',
  'actor_rollout_ref.rollout.n=3',
  'trainer.total_training_steps=2',
];
/** Validation on two other rows, before and after. */
export const VALIDATED = [...RUN, item('data.val_files', rowsFile('validation', 4))];

const TIMED = /^(?:timing_|perf\/)/;
const jsonLines = (text: string): Record<string, unknown>[] =>
  text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Record<string, unknown>]));

/** Names of the files below a folder (data files with their hash), and the figures in a metrics file. */
function leftBehind(folder: string): unknown {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
  const metrics = files
    .filter((file) => file.endsWith('metrics.jsonl'))
    .flatMap((file) => jsonLines(readFileSync(join(folder, file), 'utf8')))
    .map((line) => Object.fromEntries(Object.entries(line).filter(([name]) => !TIMED.test(name))));
  const digest = (file: string): string =>
    createHash('sha256')
      .update(readFileSync(join(folder, file)))
      .digest('hex');
  return { files: files.map((file) => (file.startsWith('data/') ? `${file} ${digest(file)}` : file)), metrics };
}

/** What one command prints; durations are not compared. */
const printed = (line: string): string => line.replace(/\b\d+\.\d\ds\b/g, '…s');

interface RunOptions {
  gradNorm?: number;
  /** In the folder of an earlier run. */
  folder?: string;
}

/** A whole training in a folder of its own: every call to the workers, every line, every file and figure. */
export async function trainingRun(loaded: LoadedConfig, { gradNorm, folder }: RunOptions = {}): Promise<unknown> {
  const home = folder ?? mkdtempSync(join(scratch, 'run-'));
  const lines: string[] = [];
  const calls: unknown[] = [];
  const from = process.cwd();
  process.chdir(home);
  const start = async (
    config: LoadedConfig['config'],
    { workers, name = 'policy' }: { workers: number; name?: string },
  ) => {
    const scripted = scriptedWorker(config, { workers, name, ...(gradNorm === undefined ? {} : { gradNorm }) });
    calls.push(scripted.calls);
    return scripted.worker;
  };
  let outcome: unknown;
  try {
    const code = await runTraining({
      loaded,
      print: (line) => lines.push(printed(line)),
      startWorker: start,
      startReference: (config, { workers }) => start(config, { workers, name: 'reference' }),
      startCritic: (config, { workers }) => start(config, { workers, name: 'critic' }),
    });
    outcome = { code };
  } catch (error) {
    outcome = { error: (error as Error).message };
  } finally {
    process.chdir(from);
  }
  const seen = { outcome, lines, calls, ...(leftBehind(home) as object), notes: loaded.notes };
  if (folder === undefined) rmSync(home, { recursive: true });
  return JSON.parse(JSON.stringify(seen).replaceAll(home, '<home>'));
}

/** What a Ray cluster is asked for. */
export const rayPlan = ({ config }: LoadedConfig): unknown => rayOptions(config);

/** Updates whose gradient is never finite. */
export const brokenRun = (loaded: LoadedConfig): Promise<unknown> =>
  trainingRun(loaded, { gradNorm: Number.POSITIVE_INFINITY });

/** In the folder of a run that has done two steps and saved both. */
export async function continuedRun(loaded: LoadedConfig): Promise<unknown> {
  const folder = mkdtempSync(join(scratch, 'continued-'));
  const first = [...RUN, 'trainer.default_local_dir=run', 'trainer.save_freq=1'];
  await trainingRun(loadConfig({ overrides: first, cores: 2 }), { folder });
  return trainingRun(loaded, { folder });
}

/** The head of a PNG: its size is all that is read before a worker sees it. */
export function imageFile(name: string, width: number, height: number): string {
  const bytes = Buffer.alloc(33);
  bytes.set([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  const file = join(scratch, `${name}.png`);
  writeFileSync(file, bytes);
  return file;
}
