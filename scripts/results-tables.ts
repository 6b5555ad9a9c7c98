/** @file What the evaluations of docs/results.md came to: tables in Markdown, bars for the figure. */
import { bootstrapInterval, type Interval, reportOf, type TryRecord } from '@frame-thinker/benchmark';
import type { Bar } from './bar-figure.ts';

/** One or, where several policies were trained from different seeds, several evaluations of the same questions. */
export interface Result {
  name: string;
  label: string;
  /** By seed; the final tries by question. */
  seeds: readonly TryRecord[][];
}

const percent = (x: number): string => (100 * x).toFixed(1);
const shown = ({ mean, low, high }: Interval): string => `${percent(mean)} (${percent(low)} to ${percent(high)})`;
const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length;
const rightOf = (records: readonly TryRecord[]): number[] =>
  records.map(({ outcome }) => (outcome === 'right' ? 1 : 0));

/** Share of right answers question by question, seeds averaged: what intervals are drawn over. */
export const byQuestion = ({ seeds }: Pick<Result, 'seeds'>): number[] =>
  seeds[0]!.map((_, i) => mean(seeds.map((records) => rightOf(records)[i]!)));

function row(label: string, seeds: readonly TryRecord[][]): string {
  const reports = seeds.map(reportOf);
  const kinds = reports[0]!.byKind.map(
    ({ kind }) =>
      `${kind} ${percent(mean(reports.map(({ byKind }) => byKind.find((own) => own.kind === kind)!.accuracy)))}`,
  );
  const cells = [
    label,
    shown(bootstrapInterval(byQuestion({ seeds }))),
    percent(mean(reports.map(({ validShare }) => validShare))),
    mean(reports.map(({ meanImages }) => meanImages)).toFixed(1),
    mean(reports.map(({ meanToolCalls }) => meanToolCalls)).toFixed(2),
    kinds.join(', '),
  ];
  return `| ${cells.join(' | ')} |`;
}

const HEAD = ['| evaluation | accuracy | valid % | frames | tool calls | by kind |', '|---|---|---|---|---|---|'];

/** Each result in one line, several seeds as their mean. */
export function resultTable(results: readonly Result[]): string[] {
  return [...HEAD, ...results.map(({ label, seeds }) => row(seeds.length > 1 ? `${label}, mean` : label, seeds))];
}

/** Each seed in a line of its own. */
export function seedTable(results: readonly Result[]): string[] {
  const several = results.filter(({ seeds }) => seeds.length > 1);
  return [
    ...HEAD,
    ...several.flatMap(({ label, seeds }) => seeds.map((records, i) => row(`${label}, seed ${i + 1}`, [records]))),
  ];
}

export const DIFFERENCE_HEAD = ['| points | mean | its standard error over seeds | by seed |', '|---|---|---|---|'];

/** Sample standard deviation over the square root of their number. */
function standardError(values: readonly number[]): number {
  const center = mean(values);
  const squares = values.reduce((sum, x) => sum + (x - center) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}

/** b − a in points, paired over the questions, with intervals over them: of each seed, and of their mean. */
export function difference(title: string, a: Result | undefined, b: Result | undefined): string[] {
  if (!a || !b) return [];
  const gains = (x: readonly number[], y: readonly number[]) => y.map((value, i) => value - x[i]!);
  const each =
    b.seeds.length > 1 ? b.seeds.map((records, i) => gains(rightOf(a.seeds[i] ?? a.seeds[0]!), rightOf(records))) : [];
  const cells = [
    title,
    shown(bootstrapInterval(gains(byQuestion(a), byQuestion(b)))),
    each.length > 2 ? percent(standardError(each.map(mean))) : '',
    each.map((values) => shown(bootstrapInterval(values))).join('; '),
  ];
  return [`| ${cells.join(' | ')} |`];
}

/**
 * accuracy = valid share · accuracy among the valid. The gain is split at the midpoints:
 * Δ(v·a) = Δv · (a₀ + a₁)/2 + Δa · (v₀ + v₁)/2.
 */
export function gainSplit(title: string, before: Result | undefined, after: Result | undefined): string[] {
  if (!before || !after) return [];
  const parts = ({ seeds }: Result) => {
    const reports = seeds.map(reportOf);
    const valid = mean(reports.map(({ validShare }) => validShare));
    return { valid, among: mean(reports.map(({ accuracy }) => accuracy)) / valid };
  };
  const [b, a] = [parts(before), parts(after)];
  const byValid = (a.valid - b.valid) * ((a.among + b.among) / 2);
  const byAmong = (a.among - b.among) * ((a.valid + b.valid) / 2);
  const cells = [b.valid, a.valid, b.among, a.among, byValid, byAmong].map(percent);
  return [`| ${[title, ...cells].join(' | ')} |`];
}

/** Seeds as marks, their mean as the bar. */
export function bars(results: readonly Result[]): Bar[] {
  return results.map(({ label, seeds }) => ({
    label,
    ...bootstrapInterval(byQuestion({ seeds })),
    marks: seeds.length > 1 ? seeds.map((records) => mean(rightOf(records))) : [],
  }));
}
