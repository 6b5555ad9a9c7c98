/** @file Estimates of the KL divergence from a reference policy, per token. */
import { AlgorithmError } from './error.ts';
import { clamp, mapRows } from './rows.ts';
import type { Rows } from './types.ts';

/** Value and derivative by logProb of an estimator at d = logProb − refLogProb. */
type Estimator = (d: number) => readonly [value: number, derivative: number];

const k1: Estimator = (d) => [d, 1];
const k2: Estimator = (d) => [0.5 * d * d, d];
/** e^(−d) + d − 1, the log ratio clamped to ±20 and the result to ±10; no gradient beyond a clamp. */
const k3: Estimator = (d) => {
  const log = clamp(-d, -20, 20);
  const value = Math.exp(log) - log - 1;
  const inside = log === -d && Math.abs(value) <= 10;
  return [clamp(value, -10, 10), inside ? 1 - Math.exp(log) : 0];
};
const ESTIMATORS: ReadonlyMap<string, Estimator> = new Map([
  ['kl', k1],
  ['k1', k1],
  ['abs', (d) => [Math.abs(d), Math.sign(d)]],
  ['mse', k2],
  ['k2', k2],
  ['low_var_kl', k3],
  ['k3', k3],
]);

/** Names that klPenalty takes. */
export const KL_PENALTIES: readonly string[] = [...ESTIMATORS.keys()].flatMap((name) => [name, `${name}+`]);

/**
 * The KL estimate per token, and its derivative by logProb per token.
 * @param kind kl/k1, abs, mse/k2, low_var_kl/k3; with a trailing + the gradient is that of k2 (straight through): the
 *   estimators k1 and k3 have the right value but not the right gradient in expectation
 * @throws AlgorithmError on another kind; `full` needs the whole distribution and is not there
 */
export function klPenalty(
  logProb: Rows,
  refLogProb: Rows,
  kind: string,
): { kl: Float64Array[]; gradLogProb: Float64Array[] } {
  const straight = kind.endsWith('+');
  const estimator = ESTIMATORS.get(straight ? kind.slice(0, -1) : kind);
  if (!estimator) throw new AlgorithmError(`kl_penalty ${kind}: must be one of ${KL_PENALTIES.join(', ')}`);
  const difference = (i: number, t: number) => logProb[i]![t]! - refLogProb[i]![t]!;
  return {
    kl: mapRows(logProb, (i, t) => estimator(difference(i, t))[0]),
    gradLogProb: mapRows(logProb, (i, t) => (straight ? k2 : estimator)(difference(i, t))[1]),
  };
}
