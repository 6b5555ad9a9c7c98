/** @file The files of an evaluation: settings.json, and records.jsonl, to which each try is added as it ends. */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import {
  type EndReason,
  explainWriteError,
  InputError,
  messageOf,
  type Reward,
  type Trajectory,
  writeFileAtomic,
} from '@frame-thinker/core';

/** `unreadable`: the video, or an environment of the user's, failed; not the policy's doing. */
export type Outcome = 'right' | 'wrong' | 'format_error' | 'unreadable';

/** One try at a question. `pnpm score` reads these lines as trajectories. */
export interface TryRecord {
  version: 1;
  /** Row of the data set, from 0. */
  row: number;
  /** From 0. */
  try: number;
  /** The question's last try: what counts. */
  final: boolean;
  outcome: Outcome;
  /** As the policy wrote it; absent when it gave none. */
  answer?: string;
  ground_truth: string;
  /** The question's kind, or its data source where rows name none. */
  kind: string;
  data_source: string;
  end: EndReason;
  tool_calls: number;
  choices: number;
  /** n · (1 + choices). */
  images: number;
  rules: Reward['rules'];
  extra_info: Record<string, unknown>;
  turns: Trajectory['turns'];
  frames: Trajectory['frames'];
  text: string;
}

/** Everything that decides the records, as JSON: model and data by hash, sampling, environment. */
export type EvaluationSettings = Record<string, unknown>;

export interface EvaluationLog {
  /** What earlier runs of the same evaluation left. */
  records: TryRecord[];
  /** On disk when it returns. @throws InputError when the disk is full. */
  append(record: TryRecord): void;
  close(): void;
}

function leaves(value: unknown, path: string): [string, string][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[path, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key));
}

/** `key: before → now` of every setting that differs. */
function differences(before: unknown, now: unknown): string[] {
  const [b, n] = [new Map(leaves(before, '')), new Map(leaves(now, ''))];
  const short = (text = 'absent'): string => (text.length > 24 ? `${text.slice(0, 20)}…` : text);
  return [...new Set([...b.keys(), ...n.keys()])]
    .filter((key) => b.get(key) !== n.get(key))
    .map((key) => `${key}: ${short(b.get(key))} → ${short(n.get(key))}`);
}

function checkSettings(file: string, dir: string, settings: EvaluationSettings): void {
  let before: unknown;
  try {
    before = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new InputError(`${file}: cannot be read (${messageOf(error)}); remove ${dir}, or give another --output`);
  }
  const changed = differences(before, JSON.parse(JSON.stringify(settings)));
  if (changed.length > 0)
    throw new InputError(
      `${dir}: holds an evaluation with other settings (${changed.join(', ')}); give another --output, or remove it`,
    );
}

/** The whole lines of the file; a line that a stop cut off is cut away. */
function readRecords(file: string): TryRecord[] {
  if (!existsSync(file)) return [];
  const bytes = readFileSync(file);
  const end = bytes.lastIndexOf(10) + 1;
  if (end < bytes.length) truncateSync(file, end);
  const lines = bytes.subarray(0, end).toString('utf8').split('\n').slice(0, -1);
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as TryRecord;
    } catch (error) {
      throw new InputError(`${file}:${i + 1}: not JSON (${messageOf(error)}); remove the file to evaluate anew`);
    }
  });
}

/** @throws InputError when the folder holds an evaluation with other settings, is damaged, or cannot be written. */
export function openEvaluationLog(dir: string, settings: EvaluationSettings): EvaluationLog {
  const settingsFile = join(dir, 'settings.json');
  const file = join(dir, 'records.jsonl');
  let handle: number;
  let records: TryRecord[];
  try {
    if (existsSync(settingsFile)) checkSettings(settingsFile, dir, settings);
    else {
      mkdirSync(dir, { recursive: true });
      writeFileAtomic(settingsFile, `${JSON.stringify(settings, null, 2)}\n`);
    }
    records = readRecords(file);
    handle = openSync(file, 'a');
  } catch (error) {
    throw explainWriteError(error, dir);
  }
  return {
    records,
    append: (record) => {
      const bytes = Buffer.from(`${JSON.stringify(record)}\n`);
      try {
        for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at);
        fsyncSync(handle);
      } catch (error) {
        throw explainWriteError(error, file);
      }
    },
    close: () => closeSync(handle),
  };
}
