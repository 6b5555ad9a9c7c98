/** @file Importance weights π / π_rollout of the training policy against the one that sampled. */
import { AlgorithmError } from '../error.ts';
import { maskedMean, maskedMeanOf, maskedRowMeans, maskedRowSums, maskTotal, selected } from '../masked.ts';
import { clamp, extremes, mapRows, meanOf, stdOf, sumOf } from '../rows.ts';
import type { Rows } from '../types.ts';
import { type Bounds, parseBounds } from './thresholds.ts';

/** Log ratios are clamped to ±20 before exp. */
export const SAFETY_BOUND = 20;

export interface WeightOptions {
  /** `token`: π/π_rollout of each token; `sequence`: the product over the row. */
  rolloutIs: 'token' | 'sequence';
  /** Weights are truncated at it; as `lower_upper` those outside become 0 (IcePop). Default 2. */
  rolloutIsThreshold?: number | string;
  /** Divide by their mean. Default false. */
  rolloutIsBatchNormalize?: boolean;
}

const share = (values: readonly number[], test: (x: number) => boolean): number =>
  values.filter(test).length / values.length;

interface Measured {
  weights: Float64Array[];
  /** The log ratio of each row, for sequence weights. */
  rowLogs: number[];
  mask: Rows;
  level: WeightOptions['rolloutIs'];
  upper: number;
  lower: number;
}

function levelMetrics({ weights, rowLogs, mask, level, upper, lower }: Measured): Record<string, number> {
  const mean = maskedMean(weights, mask);
  if (level === 'sequence') {
    const { max, min } = extremes(rowLogs);
    return {
      rollout_is_max: Math.exp(Math.min(max, SAFETY_BOUND)),
      rollout_is_min: Math.exp(min),
      rollout_is_mean: mean,
      rollout_is_ratio_fraction_high: share(rowLogs, (x) => x > Math.log(upper)),
      rollout_is_ratio_fraction_low: share(rowLogs, (x) => x < Math.log(lower)),
    };
  }
  const { max, min } = extremes(selected(weights, mask));
  return {
    rollout_is_mean: mean,
    rollout_is_ratio_fraction_high: maskedMeanOf(mask, (i, t) => (weights[i]![t]! > upper ? 1 : 0)),
    rollout_is_ratio_fraction_low: maskedMeanOf(mask, (i, t) => (weights[i]![t]! < lower ? 1 : 0)),
    rollout_is_max: max,
    rollout_is_min: min,
  };
}

/** Figures of the weights before truncation; std and effective sample size from weights clamped to [lower, upper]. */
function metricsOf(measured: Measured): Record<string, number> {
  const { weights, mask, upper, lower } = measured;
  const clamped = (i: number, t: number) => clamp(weights[i]![t]!, lower, upper);
  const mean = maskedMeanOf(mask, clamped);
  const variance = maskedMeanOf(mask, (i, t) => clamped(i, t) ** 2) - mean ** 2;
  const rows = maskedRowMeans(weights, mask);
  const { max, min } = extremes(rows);
  return {
    ...levelMetrics(measured),
    rollout_is_std: maskTotal(mask) > 1 ? Math.sqrt(Math.max(variance, 0)) : 0,
    rollout_is_eff_sample_size: 1 / maskedMeanOf(mask, (i, t) => (clamped(i, t) / (mean + 1e-8)) ** 2),
    rollout_is_seq_mean: meanOf(rows),
    rollout_is_seq_std: rows.length > 1 ? stdOf(rows) : 0,
    rollout_is_seq_max: max,
    rollout_is_seq_min: min,
    rollout_is_seq_max_deviation: extremes(rows.map((x) => Math.abs(x - 1))).max,
    rollout_is_seq_fraction_high: share(rows, (x) => x > upper),
    rollout_is_seq_fraction_low: share(rows, (x) => x < lower),
  };
}

function truncated(weights: Float64Array[], mask: Rows, { lower, upper }: Bounds, metrics: Record<string, number>) {
  if (lower === undefined) return weights.map((row) => row.map((w) => Math.min(w, upper)));
  const outside = (w: number) => w < lower || w > upper;
  metrics.rollout_is_oob_ratio = maskedMeanOf(mask, (i, t) => (outside(weights[i]![t]!) ? 1 : 0));
  return weights.map((row) => row.map((w) => (outside(w) ? 0 : w)));
}

/**
 * Truncated importance weights, 0 where the mask is 0.
 * @param logRatio log π − log π_rollout
 * @throws AlgorithmError on an unknown level, a bad threshold or an empty mask
 */
export function rolloutCorrectionWeights(
  logRatio: Rows,
  mask: Rows,
  { rolloutIs, rolloutIsThreshold = 2, rolloutIsBatchNormalize = false }: WeightOptions,
): { weights: Float64Array[]; metrics: Record<string, number> } {
  if (rolloutIs !== 'token' && rolloutIs !== 'sequence')
    throw new AlgorithmError(`rollout_is ${rolloutIs}: must be token or sequence`);
  const bounds = parseBounds('rollout_is_threshold', rolloutIsThreshold);
  if (maskTotal(mask) === 0) throw new AlgorithmError('rollout correction: the mask selects no token');
  const rowLogs = maskedRowSums(logRatio, mask);
  const raw = mapRows(mask, (i, t) => {
    if (!mask[i]![t]) return 0;
    const log = rolloutIs === 'token' ? logRatio[i]![t]! : rowLogs[i]!;
    return Math.exp(clamp(log, -SAFETY_BOUND, SAFETY_BOUND)) * mask[i]![t]!;
  });
  const { upper, lower = 1 / upper } = bounds;
  const metrics = metricsOf({ weights: raw, rowLogs, mask, level: rolloutIs, upper, lower });
  const weights = truncated(raw, mask, bounds, metrics);
  if (!rolloutIsBatchNormalize) return { weights, metrics };

  const rows = mask.map((row) => (sumOf(row) > 0 ? 1 : 0));
  const mean =
    rolloutIs === 'token'
      ? maskedMean(weights, mask)
      : sumOf(maskedRowMeans(weights, mask).map((w, i) => w * rows[i]!)) / Math.max(sumOf(rows), 1e-8);
  const factor = mean > 1e-8 ? mean : 1;
  metrics.rollout_is_batch_norm_factor = factor;
  return { weights: weights.map((row) => row.map((w) => w / factor)), metrics };
}
