/** @file The critic's loss. */
import { aggLoss } from './aggregation.ts';
import { maskedMeanOf } from './masked.ts';
import { clamp, mapRows } from './rows.ts';
import type { AggOptions, Rows } from './types.ts';

/**
 * Half the squared error, the larger of that of the prediction and that of the prediction clipped to `values` ± clipRange.
 * @returns the loss, the share of tokens where the clipped error is larger, ∂loss/∂predictions
 */
export function valueLoss({
  predictions,
  values,
  returns,
  mask,
  clipRange,
  ...options
}: { predictions: Rows; values: Rows; returns: Rows; mask: Rows; clipRange: number } & AggOptions): {
  loss: number;
  clipFraction: number;
  gradPredictions: Float64Array[];
} {
  const errors = (i: number, t: number) => {
    const [v, old, target] = [predictions[i]![t]!, values[i]![t]!, returns[i]![t]!];
    const clipped = clamp(v, old - clipRange, old + clipRange);
    return {
      plain: (v - target) ** 2,
      clipped: (clipped - target) ** 2,
      slope: 2 * (v - target),
      inside: clipped === v,
    };
  };
  const lossMat = mapRows(mask, (i, t) => {
    const { plain, clipped } = errors(i, t);
    return Math.max(plain, clipped);
  });
  const { loss, gradLossMat } = aggLoss(lossMat, mask, options);
  return {
    loss: 0.5 * loss,
    clipFraction: maskedMeanOf(mask, (i, t) => {
      const { plain, clipped } = errors(i, t);
      return clipped > plain ? 1 : 0;
    }),
    gradPredictions: mapRows(mask, (i, t) => {
      const { plain, clipped, slope, inside } = errors(i, t);
      // Where the clipped error is the larger one it does not move with the prediction; on a tie half of the gradient passes.
      const share = inside || plain > clipped ? 1 : plain === clipped ? 0.5 : 0;
      return 0.5 * gradLossMat[i]![t]! * slope * share;
    }),
  };
}
