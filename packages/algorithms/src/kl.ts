import { AlgorithmError } from './error.ts';
import type { Rows } from './types.ts';

/**
 * The KL estimate per token, and its derivative by logProb per token.
 * @param kind kl/k1, abs, mse/k2, low_var_kl/k3; with a trailing + the gradient is that of k2 (straight through).
 */
export function klPenalty(
  _logProb: Rows,
  _refLogProb: Rows,
  _kind: string,
): { kl: Float64Array[]; gradLogProb: Float64Array[] } {
  throw new AlgorithmError('klPenalty: not there yet');
}
