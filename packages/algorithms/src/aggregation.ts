/** @file From a loss per token to one number. Every mode is linear in the losses, so its weights are its gradient. */
import { AlgorithmError } from './error.ts';
import { maskedRowSums, maskTotal } from './masked.ts';
import { extremes, mapRows, sumOf } from './rows.ts';
import type { AggOptions, Rows } from './types.ts';

/**
 * The weight of each token's loss.
 *
 * - token-mean: Σ loss / tokens
 * - seq-mean-token-sum: mean over rows of the row's Σ
 * - seq-mean-token-mean: mean over rows of the row's mean
 * - seq-mean-token-sum-norm: Σ loss / loss_scale_factor
 *
 * all but the last × dpSize. Rows without a token don't count as rows.
 */
function weights(mask: Rows, options: AggOptions): { row: (tokens: number) => number; divisor: number } {
  const { lossAggMode, dpSize = 1, batchNumTokens, globalBatchSize, lossScaleFactor } = options;
  const rows = () => globalBatchSize ?? mask.filter((row) => sumOf(row) > 0).length;
  switch (lossAggMode) {
    case 'token-mean':
      return { row: () => dpSize, divisor: batchNumTokens ?? maskTotal(mask) };
    case 'seq-mean-token-sum':
      return { row: () => dpSize, divisor: rows() };
    case 'seq-mean-token-mean':
      return { row: (tokens) => dpSize / (tokens + 1e-8), divisor: rows() };
    case 'seq-mean-token-sum-norm':
      return { row: () => 1, divisor: lossScaleFactor ?? extremes(mask.map((row) => row.length)).max };
    default:
      throw new AlgorithmError(
        `loss_agg_mode ${lossAggMode}: must be token-mean, seq-mean-token-sum, seq-mean-token-mean or seq-mean-token-sum-norm`,
      );
  }
}

/**
 * One number of a loss per token, and its gradient by each loss value.
 * An empty mask gives NaN, but 0 with seq-mean-token-sum-norm; the gradient is 0 then.
 * @throws AlgorithmError on an unknown mode
 */
export function aggLoss(lossMat: Rows, mask: Rows, options: AggOptions): { loss: number; gradLossMat: Float64Array[] } {
  const { row, divisor } = weights(mask, options);
  const tokens = mask.map(sumOf);
  const sums = maskedRowSums(lossMat, mask);
  const loss = sumOf(sums.map((sum, i) => (tokens[i]! > 0 ? sum * row(tokens[i]!) : 0))) / divisor;
  const gradLossMat = mapRows(mask, (i, t) => (mask[i]![t] ? (mask[i]![t]! * row(tokens[i]!)) / divisor : 0));
  return { loss, gradLossMat };
}
