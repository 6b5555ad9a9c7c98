/** @file Proxies of signal and noise in the policy gradient. */
import { maskedRowMeans, maskedRowSums } from '../masked.ts';
import { mapRows, meanOf } from '../rows.ts';
import type { Rows } from '../types.ts';

/** With w_t = 1 − 2π_t + Σπ², the squared length of the score function. */
export function varianceProxyMetrics({
  oldLogProbs,
  sumPiSquared,
  advantages,
  mask,
  rolloutIsWeights,
  gradientNorm,
}: {
  oldLogProbs: Rows;
  sumPiSquared: Rows;
  advantages: Rows;
  mask: Rows;
  rolloutIsWeights?: Rows;
  gradientNorm?: number;
}): Record<string, number> {
  const rowAdvantages = maskedRowMeans(advantages, mask);
  const squared = (i: number, t: number) => (rolloutIsWeights?.[i]?.[t] ?? 1) ** 2;
  const w = mapRows(mask, (i, t) => (1 - 2 * Math.exp(oldLogProbs[i]![t]!) + sumPiSquared[i]![t]!) * squared(i, t));
  const rowW = maskedRowSums(w, mask);
  // The weights are taken out of w again, and their row mean put in.
  const power = rolloutIsWeights
    ? maskedRowSums(
        mapRows(mask, (i, t) => w[i]![t]! / Math.max(squared(i, t), 1e-10)),
        mask,
      )
    : rowW;
  const rho = rolloutIsWeights ? maskedRowMeans(rolloutIsWeights, mask) : mask.map(() => 1);
  const total = meanOf(power.map((x, i) => rho[i]! ** 2 * rowAdvantages[i]! ** 2 * Math.max(x, 0)));
  const signal = gradientNorm === undefined ? 0 : gradientNorm ** 2;
  const noise = gradientNorm === undefined || mask.length < 2 ? 0 : Math.max(0, (total - signal) / (mask.length - 1));
  return {
    'variance_proxy/proxy1_signal_strength': signal,
    'variance_proxy/proxy2_total_power': total,
    'variance_proxy/proxy3_pure_noise': noise,
    'variance_proxy/expected_a_squared': meanOf(rowAdvantages.map((a) => a * a)),
    'variance_proxy/expected_w': meanOf(rowW),
  };
}
