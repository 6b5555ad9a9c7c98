/** @file The synthetic data set on disk: data/synth/<seed>/{train,val,test}.jsonl and videos/, rendered in other processes. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { InputError, RunError, writeFileAtomic } from '@frame-thinker/core';
import { type QuestionKind, questionRow, questionsOf } from './synth-questions.ts';
import { type Split, synthVideo } from './synth-scene.ts';

/** Change it when scenes or questions of the same seed change. */
const GENERATOR = 1;

export interface SplitSize {
  videos: number;
  questionsPerVideo: number;
}

export interface SynthOptions {
  seed: number;
  /** Folder under which `<seed>/` is made. */
  root: string;
  splits: Partial<Record<Split, SplitSize>>;
  kinds: readonly QuestionKind[];
}

export interface SynthDataset {
  seed: number;
  dir: string;
  /** Data file of each split. */
  files: Partial<Record<Split, string>>;
  videos: { split: Split; index: number; path: string }[];
}

/** Writes the data files (at once; they need no rendered video) and says which videos belong to them. Keeps what is there. */
export function prepareSynth({ seed, root, splits, kinds }: SynthOptions): SynthDataset {
  const dir = join(root, String(seed));
  const stamp = join(dir, 'generator.json');
  const made = `${JSON.stringify({ generator: GENERATOR, seed })}\n`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') !== made)
    throw new InputError(`${stamp}: these videos were made by another version of the generator; move or remove ${dir}`);
  writeFileAtomic(stamp, made);
  const dataset: SynthDataset = { seed, dir, files: {}, videos: [] };
  for (const [split, { videos, questionsPerVideo }] of Object.entries(splits) as [Split, SplitSize][]) {
    const rows: string[] = [];
    for (let index = 0; index < videos; index++) {
      const video = synthVideo({ seed, split, index });
      dataset.videos.push({ split, index, path: join(dir, 'videos', video.name) });
      for (const question of questionsOf(video, { seed, split, index, count: questionsPerVideo, kinds }))
        rows.push(JSON.stringify(questionRow(question, { split, index: rows.length })));
    }
    const file = join(dir, `${split}.jsonl`);
    const text = `${rows.join('\n')}\n`;
    if (!existsSync(file) || readFileSync(file, 'utf8') !== text) writeFileAtomic(file, text);
    dataset.files[split] = file;
  }
  return dataset;
}

export interface Rendering {
  /** Resolves when the video is on disk; rejects when its renderer failed. */
  ready(path: string): Promise<void>;
  done: Promise<void>;
  /** Videos that were already there. */
  reused: number;
  stop(): void;
}

interface Job {
  path: string;
  promise: Promise<void>;
  resolve: () => void;
  reject: (error: Error) => void;
}

function createJob(path: string): Job {
  let settle: Pick<Job, 'resolve' | 'reject'> = { resolve: () => {}, reject: () => {} };
  const promise = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject };
  });
  promise.catch(() => {}); // Whoever waits for it sees the error; nobody has to.
  return { path, promise, ...settle };
}

/**
 * Renders the missing videos in `jobs` processes, in the order given.
 * @param onVideo called after each video, with how many are done and of how many
 */
export function renderVideos({
  dataset,
  order = dataset.videos,
  jobs = 1,
  onVideo,
}: {
  dataset: SynthDataset;
  order?: SynthDataset['videos'];
  jobs?: number;
  onVideo?: (done: number, total: number) => void;
}): Rendering {
  const missing = order.filter(({ path }) => !existsSync(path));
  const byPath = new Map(missing.map(({ path }) => [resolve(path), createJob(path)]));
  const queue = [...missing];
  let done = 0;
  const children = Array.from({ length: Math.min(jobs, queue.length) }, () => {
    const entry = fileURLToPath(new URL('./render-process.ts', import.meta.url));
    const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), entry], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env },
    });
    let log = '';
    child.stderr.on('data', (data) => {
      log = (log + data).slice(-2000);
    });
    child.stdin.on('error', () => {}); // A renderer that died is reported by its exit.
    let current: (typeof queue)[number] | undefined;
    const next = (): void => {
      current = queue.shift();
      if (current) child.stdin.write(`${JSON.stringify({ seed: dataset.seed, ...current })}\n`);
      else child.stdin.end();
    };
    createInterface({ input: child.stdout }).on('line', (path) => {
      byPath.get(resolve(path))?.resolve();
      onVideo?.(++done, missing.length);
      next();
    });
    child.on('exit', (code, signal) => {
      const error = new RunError(
        `the renderer of ${current?.path} ended with ${signal ?? `exit code ${code}`}: ${log.trim().split('\n').at(-1)}`,
      );
      if (current) for (const { path } of [current, ...queue.splice(0)]) byPath.get(resolve(path))?.reject(error);
    });
    next();
    return child;
  });
  return {
    ready: (path) => byPath.get(resolve(path))?.promise ?? Promise.resolve(),
    done: Promise.all([...byPath.values()].map(({ promise }) => promise)).then(() => {}),
    reused: order.length - missing.length,
    stop: () => {
      queue.length = 0;
      for (const child of children) child.kill('SIGKILL');
    },
  };
}
