/** @file Sums and means over the tokens where a mask is 1. What stands elsewhere, NaN included, never matters. */
import { AlgorithmError } from './error.ts';
import { mapRows, sumOf } from './rows.ts';
import type { Rows } from './types.ts';

/** Keeps an empty mask from dividing by zero: its mean is 0. */
const EPSILON = 1e-8;

function rowSum(values: ArrayLike<number>, mask: ArrayLike<number>): number {
  let sum = 0;
  for (let t = 0; t < mask.length; t++) if (mask[t]) sum += values[t]! * mask[t]!;
  return sum;
}

/** Σ of values where the mask is 1, per row. */
export function maskedRowSums(values: Rows, mask: Rows): number[] {
  return mask.map((row, i) => rowSum(values[i]!, row));
}

/** Mean of values where the mask is 1, per row: Σ / (n + 1e-8). */
export function maskedRowMeans(values: Rows, mask: Rows): number[] {
  return mask.map((row, i) => rowSum(values[i]!, row) / (sumOf(row) + EPSILON));
}

export function maskedSum(values: Rows, mask: Rows): number {
  return sumOf(maskedRowSums(values, mask));
}

/** How many tokens the mask selects. */
export function maskTotal(mask: Rows): number {
  return sumOf(mask.map(sumOf));
}

/** Σ / (n + 1e-8) over all rows. */
export function maskedMean(values: Rows, mask: Rows): number {
  return maskedSum(values, mask) / (maskTotal(mask) + EPSILON);
}

/** The mean over the mask of f(row, token). */
export function maskedMeanOf(mask: Rows, f: (row: number, token: number) => number): number {
  let sum = 0;
  for (const [i, row] of mask.entries()) for (let t = 0; t < row.length; t++) if (row[t]) sum += f(i, t) * row[t]!;
  return sum / (maskTotal(mask) + EPSILON);
}

/**
 * Variance over the mask.
 * @throws AlgorithmError when unbiased and the mask selects fewer than two tokens
 */
export function maskedVar(values: Rows, mask: Rows, { unbiased = true } = {}): number {
  const mean = maskedMean(values, mask);
  const variance = maskedMeanOf(mask, (i, t) => (values[i]![t]! - mean) ** 2);
  if (!unbiased) return variance;
  const count = maskTotal(mask);
  if (count < 2) throw new AlgorithmError(`maskedVar: the mask selects ${count} tokens, the unbiased variance needs 2`);
  return (variance * count) / (count - 1);
}

/** (x − mean) / √(variance + 1e-8) at every token, with the statistics of the mask; shiftMean false adds the mean again. */
export function maskedWhiten(values: Rows, mask: Rows, { shiftMean = true } = {}): Float64Array[] {
  const mean = maskedMean(values, mask);
  const scale = 1 / Math.sqrt(maskedVar(values, mask) + EPSILON);
  const shift = shiftMean ? 0 : mean;
  return mapRows(values, (i, t) => (values[i]![t]! - mean) * scale + shift);
}

/** The values where the mask is 1, in row order. */
export function selected(values: Rows, mask: Rows): number[] {
  const out: number[] = [];
  for (const [i, row] of mask.entries()) for (let t = 0; t < row.length; t++) if (row[t]) out.push(values[i]![t]!);
  return out;
}

/** 1 up to and with the first end-of-sequence token of each row, 0 after it. */
export function responseMask(ids: Rows, eos: number | readonly number[]): Float64Array[] {
  const ends = new Set(typeof eos === 'number' ? [eos] : eos);
  return ids.map((row) => {
    const end = Array.from(row).findIndex((id) => ends.has(id));
    return Float64Array.from({ length: row.length }, (_, t) => (end < 0 || t <= end ? 1 : 0));
  });
}
