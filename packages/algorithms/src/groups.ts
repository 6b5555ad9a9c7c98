/** @file Groups of rows: those that answer the same question. */
import { meanOf, stdOf } from './rows.ts';

/** The rows of each group, groups in order of first appearance. */
export function groupsOf(index: readonly string[]): Map<string, number[]> {
  const groups = new Map<string, number[]>();
  for (const [i, key] of index.entries()) {
    const rows = groups.get(key);
    if (rows) rows.push(i);
    else groups.set(key, [i]);
  }
  return groups;
}

/** Mean and unbiased std of each row's group; a group of one has mean 0 and std 1, so that its reward stays as it is. */
export function groupStatistics(
  scores: ArrayLike<number>,
  index: readonly string[],
): { mean: number[]; std: number[] } {
  const mean = new Array<number>(index.length).fill(0);
  const std = new Array<number>(index.length).fill(1);
  for (const rows of groupsOf(index).values()) {
    if (rows.length === 1) continue;
    const of = rows.map((i) => scores[i]!);
    const [m, s] = [meanOf(of), stdOf(of)];
    for (const i of rows) {
      mean[i] = m;
      std[i] = s;
    }
  }
  return { mean, std };
}

/** Whole-number group ids: the numbers themselves when all keys are integers, else ranks of the sorted keys. */
export function groupIds(index: readonly string[]): number[] {
  if (index.every((key) => /^[+-]?\d+$/.test(key))) return index.map(Number);
  const sorted = [...new Set(index)].sort((a, b) => (a < b ? -1 : 1));
  return index.map((key) => sorted.indexOf(key));
}

/**
 * Mean, std and count by group id, the variance as E[x²] − E[x]² floored at eps. Sums are rounded to float32 at each step, as
 * the original does whatever the input: for near-equal rewards this rounding is most of the result.
 */
export function groupMeanStd(
  scores: ArrayLike<number>,
  ids: readonly number[],
  eps = 1e-6,
): { mean: number[]; std: number[]; count: number[] } {
  const f = Math.fround;
  const size = ids.reduce((most, id) => Math.max(most, id + 1), 0);
  const zeros = () => new Float32Array(size);
  const [count, sum, squares] = [zeros(), zeros(), zeros()];
  for (const [i, id] of ids.entries()) {
    const x = f(scores[i]!);
    count[id]! += 1;
    sum[id] = sum[id]! + x;
    squares[id] = squares[id]! + f(x * x);
  }
  const n = Array.from(count, (c) => Math.max(c, 1));
  const single = (id: number) => count[id]! <= 1;
  const mean = n.map((c, id) => (single(id) ? 0 : f(sum[id]! / c)));
  const std = n.map((c, id) => {
    const variance = f(f(squares[id]! - f(f(sum[id]! * sum[id]!) / c)) / Math.max(c - 1, 1));
    return single(id) ? 1 : f(Math.sqrt(Math.max(variance, eps)));
  });
  return { mean, std, count: [...count] };
}
