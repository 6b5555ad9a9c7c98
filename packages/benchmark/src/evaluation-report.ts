/** @file What an evaluation came to, from its final records. */
import type { TryRecord } from './evaluation-log.ts';

export interface Share {
  questions: number;
  right: number;
  /** right / questions; 0 without questions. */
  accuracy: number;
}

export interface EvaluationReport {
  /** All questions, unreadable ones included. */
  questions: number;
  right: number;
  wrong: number;
  formatErrors: number;
  /** Left out of every other number. */
  unreadable: number;
  /** right / (right + wrong + format errors). */
  accuracy: number;
  /** (right + wrong) / (right + wrong + format errors). */
  validShare: number;
  /** Means over valid answers. */
  meanImages: number;
  meanToolCalls: number;
  meanTries: number;
  /** Valid answers by number of tool calls. */
  byToolCalls: (Share & { toolCalls: number })[];
  /** Readable questions by kind. */
  byKind: (Share & { kind: string })[];
  /** How invalid last tries ended, and which rules they broke. */
  formatErrorEnds: Record<string, number>;
  brokenRules: Record<string, number>;
  /** Why questions could not be read. */
  unreadableEnds: Record<string, number>;
}

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;

function shareOf(records: readonly TryRecord[]): Share {
  const right = records.filter(({ outcome }) => outcome === 'right').length;
  return { questions: records.length, right, accuracy: records.length === 0 ? 0 : right / records.length };
}

function grouped<K extends string | number>(records: readonly TryRecord[], key: (r: TryRecord) => K) {
  const groups = new Map<K, TryRecord[]>();
  for (const record of records) groups.set(key(record), [...(groups.get(key(record)) ?? []), record]);
  const keys = [...groups.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return keys.map((value) => [value, groups.get(value)!] as const);
}

function counts(names: readonly string[]): Record<string, number> {
  const found: Record<string, number> = {};
  for (const name of names) found[name] = (found[name] ?? 0) + 1;
  return Object.fromEntries(Object.entries(found).sort(([a, m], [b, n]) => n - m || a.localeCompare(b)));
}

/** @param records one a question: its final try */
export function reportOf(records: readonly TryRecord[]): EvaluationReport {
  const readable = records.filter(({ outcome }) => outcome !== 'unreadable');
  const valid = readable.filter(({ outcome }) => outcome !== 'format_error');
  const invalid = readable.filter(({ outcome }) => outcome === 'format_error');
  const { right, accuracy } = shareOf(readable);
  return {
    questions: records.length,
    right,
    wrong: valid.length - right,
    formatErrors: invalid.length,
    unreadable: records.length - readable.length,
    accuracy,
    validShare: readable.length === 0 ? 0 : valid.length / readable.length,
    meanImages: mean(valid.map(({ images }) => images)),
    meanToolCalls: mean(valid.map((record) => record.tool_calls)),
    meanTries: mean(valid.map((record) => record.try + 1)),
    byToolCalls: grouped(valid, (record) => record.tool_calls).map(([toolCalls, own]) => ({
      toolCalls,
      ...shareOf(own),
    })),
    byKind: grouped(readable, ({ kind }) => kind).map(([kind, own]) => ({ kind, ...shareOf(own) })),
    formatErrorEnds: counts(invalid.map(({ end }) => end)),
    brokenRules: counts(invalid.flatMap(({ rules }) => rules.map(({ name }) => name))),
    unreadableEnds: counts(records.filter(({ outcome }) => outcome === 'unreadable').map(({ end }) => end)),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const listed = (found: Record<string, number>): string => {
  const parts = Object.entries(found).map(([name, count]) => `${name} ${count}`);
  return parts.length > 0 ? ` (${parts.join(', ')})` : '';
};

/** The report as a table for a terminal. */
export function formatReport(report: EvaluationReport): string {
  const rows: [string, string][] = [
    ['questions', String(report.questions)],
    ['accuracy', percent(report.accuracy)],
    ['right', String(report.right)],
    ['wrong', String(report.wrong)],
    ['format errors', `${report.formatErrors}${listed(report.brokenRules)}`],
    ['unreadable (left out)', `${report.unreadable}${listed(report.unreadableEnds)}`],
    ['valid', percent(report.validShare)],
    ['images per valid answer', report.meanImages.toFixed(2)],
    ['tool calls per valid answer', report.meanToolCalls.toFixed(2)],
    ['tries per valid answer', report.meanTries.toFixed(2)],
    ...report.byToolCalls.map(({ toolCalls, ...share }): [string, string] => [
      `accuracy with ${toolCalls} ${toolCalls === 1 ? 'call' : 'calls'}`,
      `${percent(share.accuracy)} of ${share.questions}`,
    ]),
    ...report.byKind.map(({ kind, ...share }): [string, string] => [
      `accuracy of ${kind}`,
      `${percent(share.accuracy)} of ${share.questions}`,
    ]),
  ];
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  return rows.map(([name, value]) => `${name.padEnd(width)}${value}`).join('\n');
}
