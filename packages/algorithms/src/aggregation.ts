import { AlgorithmError } from './error.ts';
import type { AggOptions, Rows } from './types.ts';

/** One number of a loss per token, and its gradient by each loss value. */
export function aggLoss(
  _lossMat: Rows,
  _mask: Rows,
  _options: AggOptions,
): { loss: number; gradLossMat: Float64Array[] } {
  throw new AlgorithmError('aggLoss: not there yet');
}
