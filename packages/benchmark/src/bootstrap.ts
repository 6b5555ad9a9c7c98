/** @file Intervals of shares by the bootstrap: questions are drawn again, with replacement. */
import { createRng } from '@frame-thinker/core';

const RESAMPLES = 10_000;

export interface Interval {
  mean: number;
  /** 2.5 % and 97.5 % quantiles of the resampled means. */
  low: number;
  high: number;
}

const meanOf = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/**
 * Mean of the values with its 95 % percentile interval. Seeded: the same values give the same interval. For a difference of
 * two evaluations of the same questions, give the differences question by question.
 * @throws RangeError without values
 */
export function bootstrapInterval(values: readonly number[], resamples = RESAMPLES): Interval {
  if (values.length === 0) throw new RangeError('no values to resample');
  const rng = createRng(0, 'permute');
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[rng.below(values.length)]!;
    return sum / values.length;
  }).sort();
  const quantile = (share: number): number => means[Math.min(resamples - 1, Math.floor(share * resamples))]!;
  return { mean: meanOf(values), low: quantile(0.025), high: quantile(0.975) };
}
