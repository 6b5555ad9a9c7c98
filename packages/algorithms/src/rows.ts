/** @file Helpers on rows. */
import { AlgorithmError } from './error.ts';
import type { Rows } from './types.ts';

/** New rows of the lengths of `like`, each element from its position. */
export function mapRows(like: Rows, f: (row: number, token: number) => number): Float64Array[] {
  // A loop: Float64Array.from takes several times as long.
  return like.map((row, i) => {
    const out = new Float64Array(row.length);
    for (let t = 0; t < out.length; t++) out[t] = f(i, t);
    return out;
  });
}

/** Rows with the scalar of their row where the mask is 1, 0 elsewhere. */
export function spread(scalars: ArrayLike<number>, mask: Rows): Float64Array[] {
  return mapRows(mask, (i, t) => scalars[i]! * mask[i]![t]!);
}

export function sumOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum;
}

export function meanOf(values: ArrayLike<number>): number {
  return sumOf(values) / values.length;
}

/** Unbiased standard deviation, as torch.std. NaN for one value. */
export function stdOf(values: ArrayLike<number>): number {
  return Math.sqrt(varianceOf(values));
}

/** Unbiased variance, as torch.var. NaN for one value. */
export function varianceOf(values: ArrayLike<number>): number {
  const mean = meanOf(values);
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i]! - mean) ** 2;
  return squares / (values.length - 1);
}

/** The largest and the smallest value. */
export function extremes(values: ArrayLike<number>): { max: number; min: number } {
  let [max, min] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let i = 0; i < values.length; i++) {
    max = Math.max(max, values[i]!);
    min = Math.min(min, values[i]!);
  }
  return { max, min };
}

export function clamp(x: number, low: number, high: number): number {
  return Math.min(Math.max(x, low), high);
}

/** Checks that rows have the lengths of the mask. */
export function checkLengths(where: string, mask: Rows, named: Readonly<Record<string, Rows | undefined>>): void {
  for (const [name, rows] of Object.entries(named)) {
    if (!rows) continue;
    if (rows.length !== mask.length)
      throw new AlgorithmError(`${where}: ${name} has ${rows.length} rows, the mask ${mask.length}`);
    for (const [i, row] of rows.entries())
      if (row.length !== mask[i]!.length)
        throw new AlgorithmError(`${where}: row ${i} of ${name} has ${row.length} tokens, the mask ${mask[i]!.length}`);
  }
}

/** The value of an optional argument that this function cannot do without. */
export function required<T>(value: T | undefined, where: string, name: string): T {
  if (value === undefined) throw new AlgorithmError(`${where}: ${name} is needed`);
  return value;
}
