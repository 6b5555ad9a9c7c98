/** @file Rejection of tokens or whole rows whose policy moved too far from the one that sampled. */
import { AlgorithmError } from '../error.ts';
import { maskedMeanOf, maskedRowMeans, maskedRowSums, maskTotal, selected } from '../masked.ts';
import { clamp, extremes, mapRows, meanOf, stdOf, sumOf } from '../rows.ts';
import type { Rows } from '../types.ts';
import { parseBounds, parseList } from './thresholds.ts';
import { SAFETY_BOUND } from './weights.ts';

type Level = 'token' | 'seq_sum' | 'seq_mean' | 'seq_max';
type Estimator = 'k1' | 'k2' | 'k3';

/** Estimates of KL(π_rollout ‖ π) from the log ratio log π − log π_rollout. */
const ESTIMATORS: { readonly [Name in Estimator]: (logRatio: number) => number } = {
  k1: (x) => -x,
  k2: (x) => 0.5 * x * x,
  k3: (x) => Math.exp(x) - 1 - x,
};

/** What `rollout_rs` may name, comma separated. */
export const ROLLOUT_RS_OPTIONS: readonly string[] = ['token', 'seq_sum', 'seq_mean', 'seq_max'].flatMap((level) =>
  (level === 'seq_max' ? ['k2', 'k3'] : ['k1', 'k2', 'k3']).map((estimator) => `${level}_${estimator}`),
);

interface Option {
  name: string;
  level: Level;
  estimator: Estimator;
  /** Bounds of the statistic: those of log (π_rollout / π) for k1, else [−∞, threshold]. */
  lower: number;
  upper: number;
}

function parseOption(name: string, spec: string | number): Option {
  const at = name.lastIndexOf('_');
  const [level, estimator] = [name.slice(0, at) as Level, name.slice(at + 1) as Estimator];
  const { lower, upper } = parseBounds(`rollout_rs_threshold of ${name}`, spec);
  if (estimator === 'k1')
    return { name, level, estimator, lower: Math.log(lower ?? 1 / upper), upper: Math.log(upper) };
  if (lower !== undefined)
    throw new AlgorithmError(`rollout_rs_threshold of ${name}: ${spec}: takes one upper bound, not lower_upper`);
  return { name, level, estimator, lower: Number.NEGATIVE_INFINITY, upper };
}

function parseOptions(names: string | null | undefined, threshold: string | number | null | undefined): Option[] {
  const unique = [...new Set((names ?? '').split(',').map((name) => name.trim()))].filter((name) => name !== '');
  if (unique.length === 0) throw new AlgorithmError('rollout_rs: names no option');
  for (const name of unique)
    if (!ROLLOUT_RS_OPTIONS.includes(name))
      throw new AlgorithmError(`rollout_rs ${name}: must be one of ${ROLLOUT_RS_OPTIONS.join(', ')}`);
  if (threshold === null || threshold === undefined)
    throw new AlgorithmError(`rollout_rs ${names}: rollout_rs_threshold is needed`);
  const specs = parseList('rollout_rs_threshold', unique, threshold);
  return unique.map((name, i) => parseOption(name, specs[i]!));
}

/** The statistic of each row at sequence level; undefined at token level. */
function rowStatistic(level: Level, tokens: Rows, mask: Rows): number[] | undefined {
  switch (level) {
    case 'token':
      return undefined;
    case 'seq_sum':
      return maskedRowSums(tokens, mask);
    case 'seq_mean':
      return maskedRowMeans(tokens, mask);
    case 'seq_max':
      return mask.map((row, i) => {
        const { max } = extremes(selected([tokens[i]!], [row]));
        return max === Number.NEGATIVE_INFINITY ? 0 : max;
      });
  }
}

const share = (values: readonly number[], test: (x: number) => boolean): number =>
  values.filter(test).length / values.length;

/** Figures of one option's statistic. `rows`: of the rows that have a token. */
function statisticMetrics(
  option: Option,
  statistic: Rows,
  rows: readonly number[],
  mask: Rows,
): Record<string, number> {
  const { upper, lower } = option;
  const hasLower = option.estimator === 'k1';
  const sequence = option.level !== 'token';
  const [high, low] = [(x: number) => x > upper, (x: number) => x < lower];
  const over = (test: (x: number) => boolean) => maskedMeanOf(mask, (i, t) => (test(statistic[i]![t]!) ? 1 : 0));
  const { max, min } = extremes(sequence ? rows : selected(statistic, mask));
  const ofRows = extremes(rows);
  const clamped = (i: number, t: number) => clamp(statistic[i]![t]!, hasLower ? lower : 0, upper);
  const variance = maskedMeanOf(mask, (i, t) => clamped(i, t) ** 2) - maskedMeanOf(mask, clamped) ** 2;
  const figures: Record<string, number> = {
    mean: maskedMeanOf(mask, (i, t) => statistic[i]![t]!),
    max,
    min,
    fraction_high: sequence ? share(rows, high) : over(high),
    fraction_low: !hasLower ? 0 : sequence ? share(rows, low) : over(low),
    std: maskTotal(mask) > 1 ? Math.sqrt(Math.max(variance, 0)) : 0,
    seq_mean: meanOf(rows),
    seq_std: rows.length > 1 ? stdOf(rows) : 0,
    seq_max: ofRows.max,
    seq_min: ofRows.min,
    seq_max_deviation: extremes(rows.map(Math.abs)).max,
    seq_fraction_high: share(rows, high),
    ...(hasLower ? { seq_fraction_low: share(rows, low) } : {}),
  };
  return Object.fromEntries(Object.entries(figures).map(([key, x]) => [`rollout_rs_${option.name}_${key}`, x]));
}

/**
 * The mask without tokens (or whole rows) whose divergence is out of bounds; several options must all keep a token.
 * @param logRatio log π − log π_rollout
 * @param rolloutRs options of ROLLOUT_RS_OPTIONS, comma separated
 * @param threshold one bound for all or one each; for k1 of the ratio π_rollout / π, `lower_upper` or an upper bound whose inverse is the lower
 * @throws AlgorithmError on an unknown option, a bad threshold or an empty mask
 */
export function rolloutRejectionMask(
  logRatio: Rows,
  mask: Rows,
  { rolloutRs, threshold }: { rolloutRs: string | null | undefined; threshold: string | number | null | undefined },
): { mask: Float64Array[]; metrics: Record<string, number> } {
  const options = parseOptions(rolloutRs, threshold);
  if (mask.length === 0) return { mask: [], metrics: {} };
  if (maskTotal(mask) === 0) throw new AlgorithmError('rollout rejection: the mask selects no token');
  const metrics: Record<string, number> = {};
  const hasToken = mask.map((row) => sumOf(row) > 0);
  const kept = mapRows(mask, () => 1);
  const rejectedRows = (keeps: (i: number, t: number) => boolean) =>
    mask.filter((row, i) => Array.from(row).some((m, t) => m && !keeps(i, t))).length;
  for (const option of options) {
    const tokens = mapRows(logRatio, (i, t) =>
      ESTIMATORS[option.estimator](clamp(logRatio[i]![t]!, -SAFETY_BOUND, SAFETY_BOUND)),
    );
    const rows = rowStatistic(option.level, tokens, mask);
    const statistic = rows ? mapRows(mask, (i) => rows[i]!) : tokens;
    const keeps = (i: number, t: number) => statistic[i]![t]! >= option.lower && statistic[i]![t]! <= option.upper;
    const valid = (rows ?? maskedRowMeans(tokens, mask)).filter((_, i) => hasToken[i]);
    Object.assign(metrics, statisticMetrics(option, statistic, valid, mask));
    metrics[`rollout_rs_${option.name}_masked_fraction`] = maskedMeanOf(mask, (i, t) => (keeps(i, t) ? 0 : 1));
    metrics[`rollout_rs_${option.name}_seq_masked_fraction`] = rejectedRows(keeps) / valid.length;
    for (const [i, row] of kept.entries()) for (let t = 0; t < row.length; t++) if (!keeps(i, t)) row[t] = 0;
  }
  metrics.rollout_rs_masked_fraction = maskedMeanOf(mask, (i, t) => 1 - kept[i]![t]!);
  metrics.rollout_rs_seq_masked_fraction = rejectedRows((i, t) => kept[i]![t] === 1) / mask.length;
  return { mask: mapRows(mask, (i, t) => mask[i]![t]! * kept[i]![t]!), metrics };
}
