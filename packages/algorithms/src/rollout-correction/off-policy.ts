/** @file How far the training policy is from the one that sampled. */
import { AlgorithmError } from '../error.ts';
import { maskedMeanOf, maskedRowMeans, maskedRowSums, maskTotal } from '../masked.ts';
import { clamp, extremes, mapRows, meanOf } from '../rows.ts';
import type { Rows } from '../types.ts';
import { SAFETY_BOUND } from './weights.ts';

/**
 * Perplexities, KL estimates and χ² divergences; means per row first where named ppl, rows without a token count as log-prob 0.
 * @throws AlgorithmError on an empty mask
 */
export function offPolicyMetrics({
  oldLogProb,
  rolloutLogProb,
  mask,
}: {
  oldLogProb: Rows;
  rolloutLogProb?: Rows | undefined;
  mask: Rows;
}): Record<string, number> {
  if (maskTotal(mask) === 0) throw new AlgorithmError('off-policy metrics: the mask selects no token');
  const training = maskedRowMeans(oldLogProb, mask);
  const metrics: Record<string, number> = {
    training_ppl: meanOf(training.map((x) => Math.exp(-x))),
    training_log_ppl: -meanOf(training),
  };
  if (!rolloutLogProb) return metrics;
  const rollout = maskedRowMeans(rolloutLogProb, mask);
  const logRatio = (i: number, t: number) => oldLogProb[i]![t]! - rolloutLogProb[i]![t]!;
  const differences = rollout.map((x, i) => x - training[i]!);
  const rowLogs = maskedRowSums(mapRows(mask, logRatio), mask);
  const safe = (x: number) => clamp(x, -SAFETY_BOUND, SAFETY_BOUND);
  const { max, min } = extremes(differences);
  return {
    ...metrics,
    kl: maskedMeanOf(mask, (i, t) => -logRatio(i, t)),
    k3_kl: maskedMeanOf(mask, (i, t) => Math.exp(logRatio(i, t)) - logRatio(i, t) - 1),
    rollout_ppl: meanOf(rollout.map((x) => Math.exp(-x))),
    rollout_log_ppl: -meanOf(rollout),
    log_ppl_diff: meanOf(differences),
    log_ppl_abs_diff: meanOf(differences.map(Math.abs)),
    log_ppl_diff_max: max,
    log_ppl_diff_min: min,
    ppl_ratio: meanOf(differences.map(Math.exp)),
    chi2_token: maskedMeanOf(mask, (i, t) => Math.exp(2 * safe(logRatio(i, t)))) - 1,
    chi2_seq: meanOf(rowLogs.map((x) => Math.exp(2 * safe(x)))) - 1,
  };
}
