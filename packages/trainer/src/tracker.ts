/** @file Where metrics go: metrics.jsonl always, the console when asked; a run's events.jsonl. */
import {
  appendFileSync,
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { explainWriteError, InputError, messageOf } from '@frame-thinker/core';

export type Metrics = Record<string, number>;

export interface Tracker {
  /** Writes a step's line, in the place of its draft where there is one. */
  log(step: number, metrics: Metrics): void;
  /** Writes a step's line before its checkpoint is saved, so that no kill leaves the one without the other. */
  draft(step: number, metrics: Metrics): void;
  event(kind: string, fields: Record<string, unknown>): void;
}

function append(path: string, value: unknown): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    appendFileSync(path, `${JSON.stringify(value)}\n`);
  } catch (error) {
    throw explainWriteError(error, path);
  }
}

/** Writes the last line anew, which begins at byte `start`: in one call, so that it is the old or the new one. */
function replaceLast(path: string, start: number, value: unknown): void {
  const line = Buffer.from(`${JSON.stringify(value)}\n`);
  try {
    const handle = openSync(path, 'r+');
    try {
      writeSync(handle, line, 0, line.byteLength, start);
      ftruncateSync(handle, start + line.byteLength);
    } finally {
      closeSync(handle);
    }
  } catch (error) {
    throw explainWriteError(error, path);
  }
}

function stepOf(line: string, where: string): number {
  try {
    return (JSON.parse(line) as { step: number }).step;
  } catch (error) {
    throw new InputError(`${where}: damaged (${messageOf(error)}); mend or remove this line and resume`);
  }
}

/** Cuts off the lines of steps after `step` and an unfinished last line: a resumed run writes those again. */
export function rewindJsonl(path: string, step: number): void {
  if (!existsSync(path)) return;
  const text = readFileSync(path, 'utf8');
  let kept = 0;
  for (const [i, line] of text.split(/(?<=\n)/).entries()) {
    if (!line.endsWith('\n') || stepOf(line, `${path}:${i + 1}`) > step) break;
    kept += Buffer.byteLength(line);
  }
  if (kept < Buffer.byteLength(text)) truncateSync(path, kept);
}

const SHOWN = [
  ['reward', 'critic/score/mean'],
  ['acc', 'critic/acc/mean'],
  ['valid', 'critic/format/mean'],
  ['tools', 'tool_call_counts/mean'],
  ['tokens', 'response_length/mean'],
  ['loss', 'actor/pg_loss'],
  ['loss', 'train/loss'],
  ['grad', 'actor/grad_norm'],
  ['grad', 'train/grad_norm'],
  ['lr', 'train/lr'],
  ['gen', 'timing_s/gen'],
  ['update', 'timing_s/update_actor'],
  ['step', 'timing_s/step'],
] as const;

/** One line a step with the figures that tell whether it learns. */
export function summaryLine(metrics: Metrics): string {
  const figures = SHOWN.flatMap(([label, key]) => {
    const value = metrics[key];
    if (value === undefined) return [];
    return [`${label} ${key.startsWith('timing') ? `${value.toFixed(2)}s` : Number(value.toPrecision(3))}`];
  });
  const leftOut = Object.entries(metrics).flatMap(([key, count]) => {
    const [, error] = /^agent\/error\/(.+)$/.exec(key) ?? [];
    return error === undefined ? [] : [`left out ${count} (${error})`];
  });
  return [...figures, ...leftOut].join('  ');
}

/** The last step of a metrics file in one line, its validation included. */
export function lastLine(metricsFile: string): string {
  const text = existsSync(metricsFile) ? readFileSync(metricsFile, 'utf8').trim().split('\n').at(-1) : '';
  if (!text) return 'no metrics were kept';
  // JSON has no NaN: null stands for it.
  const metrics = JSON.parse(text, (_, value: unknown) => value ?? Number.NaN) as Metrics;
  const validation = Object.entries(metrics).flatMap(([key, value]) =>
    key.startsWith('val-core/') ? [`${key} ${Number(value.toPrecision(3))}`] : [],
  );
  return [summaryLine(metrics), ...validation].join('  ');
}

export function createTracker({
  metricsFile,
  eventsFile,
  print,
}: {
  metricsFile: string;
  eventsFile: string;
  print?: ((line: string) => void) | undefined;
}): Tracker {
  let draft: { step: number; start: number } | undefined;
  return {
    draft: (step, metrics) => {
      draft = { step, start: statSync(metricsFile, { throwIfNoEntry: false })?.size ?? 0 };
      append(metricsFile, { step, ...metrics });
    },
    log: (step, metrics) => {
      if (draft?.step === step) replaceLast(metricsFile, draft.start, { step, ...metrics });
      else append(metricsFile, { step, ...metrics });
      const summary = summaryLine(metrics);
      if (summary) print?.(`step ${step}  ${summary}`);
    },
    event: (kind, fields) => append(eventsFile, { time: new Date().toISOString(), kind, ...fields }),
  };
}
