/** @file What the losses share: a loss per token with its derivative, summed up by aggLoss, and the clip settings. */
import { aggLoss } from '../aggregation.ts';
import { maskedMeanOf } from '../masked.ts';
import { mapRows } from '../rows.ts';
import type { PolicyLossInput, PolicyLossOptions, PolicyLossOutput } from '../types.ts';

/** A token's loss and its derivative by logProb. */
export interface TokenLoss {
  loss: number;
  slope: number;
}

/** Aggregates losses per token, times the rollout importance weights if there are any. */
export function aggregated(
  { mask, rolloutIsWeights }: PolicyLossInput,
  options: PolicyLossOptions,
  tokenLoss: (row: number, token: number) => TokenLoss,
): Pick<PolicyLossOutput, 'loss' | 'gradLogProb'> {
  const slopes = mask.map((row) => new Float64Array(row.length));
  const losses = mapRows(mask, (i, t) => {
    if (!mask[i]![t]) return 0;
    const weight = rolloutIsWeights?.[i]?.[t] ?? 1;
    const { loss, slope } = tokenLoss(i, t);
    slopes[i]![t] = slope * weight;
    return loss * weight;
  });
  const { loss, gradLossMat } = aggLoss(losses, mask, options);
  return { loss, gradLogProb: mapRows(mask, (i, t) => gradLossMat[i]![t]! * slopes[i]![t]!) };
}

/** log π − log π_old, clamped to ±bound for stability; beyond it there is no gradient. */
export function logRatio(
  { logProb, oldLogProb }: PolicyLossInput,
  bound = Number.POSITIVE_INFINITY,
): (row: number, token: number) => { value: number; slope: number } {
  return (i, t) => {
    const raw = logProb[i]![t]! - oldLogProb[i]![t]!;
    const value = Math.min(Math.max(raw, -bound), bound);
    return { value, slope: value === raw ? 1 : 0 };
  };
}

/** The bound of the log ratio in vanilla, sapo, cispo and dppo. */
export const LOG_RATIO_BOUND = 20;

/** The clip range [1 − low, 1 + high] of the ratio. */
export function clipRange({ clipRatio = 0.2, clipRatioLow, clipRatioHigh }: PolicyLossOptions): {
  low: number;
  high: number;
} {
  return { low: clipRatioLow ?? clipRatio, high: clipRatioHigh ?? clipRatio };
}

/** The clipped objective at one token: max(−A r, −A clip(r)), and its derivative by r. */
export function clippedLoss(ratio: number, advantage: number, range: { low: number; high: number }) {
  const clipped = Math.min(Math.max(ratio, 1 - range.low), 1 + range.high);
  const [plain, other] = [-advantage * ratio, -advantage * clipped];
  // Inside the range both are the same; outside the clipped one does not move with r.
  const share = clipped === ratio || plain > other ? 1 : 0;
  return { loss: Math.max(plain, other), slope: -advantage * share, clips: other > plain };
}

/** The usual metrics, means over the mask. */
export function clipMetrics(
  { mask }: PolicyLossInput,
  clips: (row: number, token: number) => boolean,
  kl: (row: number, token: number) => number,
  clipsLower: (row: number, token: number) => boolean = () => false,
): Record<string, number> {
  return {
    'actor/pg_clipfrac': maskedMeanOf(mask, (i, t) => (clips(i, t) ? 1 : 0)),
    'actor/ppo_kl': maskedMeanOf(mask, kl),
    'actor/pg_clipfrac_lower': maskedMeanOf(mask, (i, t) => (clipsLower(i, t) ? 1 : 0)),
  };
}
