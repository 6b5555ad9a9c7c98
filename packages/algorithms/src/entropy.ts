/** @file The entropy of a policy's next-token distribution. */
import { aggLoss } from './aggregation.ts';
import { mapRows } from './rows.ts';
import type { AggOptions, Rows } from './types.ts';

/** Entropy of softmax(logits), in nats, and its gradient by the logits: −p (log p + H). */
export function entropyOf(logits: ArrayLike<number>): { entropy: number; gradLogits: Float64Array } {
  let largest = Number.NEGATIVE_INFINITY;
  for (let v = 0; v < logits.length; v++) largest = Math.max(largest, logits[v]!);
  let sum = 0;
  for (let v = 0; v < logits.length; v++) sum += Math.exp(logits[v]! - largest);
  const logSum = largest + Math.log(sum);
  const logProbs = Float64Array.from(logits, (x) => x - logSum);
  // A banned token (logit −∞) has p = 0 and no part in the entropy.
  const entropy = logProbs.reduce((h, logP) => (logP === Number.NEGATIVE_INFINITY ? h : h - Math.exp(logP) * logP), 0);
  const gradLogits = logProbs.map((logP) =>
    logP === Number.NEGATIVE_INFINITY ? 0 : -Math.exp(logP) * (logP + entropy),
  );
  return { entropy, gradLogits };
}

/**
 * The aggregated entropy of each token's distribution.
 * @param logits by row and token, one array of the vocabulary's size
 */
export function entropyLoss(
  logits: readonly (readonly ArrayLike<number>[])[],
  mask: Rows,
  options: AggOptions,
): { loss: number; gradLogits: Float64Array[][] } {
  const tokens = logits.map((row) => row.map(entropyOf));
  const { loss, gradLossMat } = aggLoss(
    mapRows(mask, (i, t) => tokens[i]![t]!.entropy),
    mask,
    options,
  );
  return {
    loss,
    gradLogits: tokens.map((row, i) => row.map(({ gradLogits }, t) => gradLogits.map((g) => g * gradLossMat[i]![t]!))),
  };
}
