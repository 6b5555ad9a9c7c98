/** @file Correction of the mismatch between the policy that sampled and the one that is trained. */
import { AlgorithmError } from '../error.ts';
import { checkLengths, mapRows } from '../rows.ts';
import type { RolloutCorrectionOptions, Rows } from '../types.ts';
import { offPolicyMetrics } from './off-policy.ts';
import { rolloutRejectionMask } from './rejection.ts';
import { rolloutCorrectionWeights } from './weights.ts';

export { offPolicyMetrics } from './off-policy.ts';
export { ROLLOUT_RS_OPTIONS, rolloutRejectionMask } from './rejection.ts';
export { rolloutCorrectionWeights, type WeightOptions } from './weights.ts';

/**
 * Importance weights (where rolloutIs is set), the mask after rejection (where rolloutRs is set), and metrics under
 * `rollout_corr/`.
 */
export function rolloutCorrection(
  { oldLogProb, rolloutLogProb, mask }: { oldLogProb: Rows; rolloutLogProb: Rows; mask: Rows },
  options: Omit<RolloutCorrectionOptions, 'lossType'>,
): { weights: Float64Array[] | undefined; mask: Rows; metrics: Record<string, number> } {
  const { rolloutIs, rolloutIsThreshold, rolloutIsBatchNormalize, rolloutRs, rolloutRsThreshold } = options;
  checkLengths('rollout correction', mask, { oldLogProb, rolloutLogProb });
  const logRatio = mapRows(mask, (i, t) => oldLogProb[i]![t]! - rolloutLogProb[i]![t]!);
  if (rolloutRs && (rolloutRsThreshold === undefined || rolloutRsThreshold === null))
    throw new AlgorithmError(`rollout_rs ${rolloutRs}: rollout_rs_threshold is needed`);
  const weighted = rolloutIs
    ? rolloutCorrectionWeights(logRatio, mask, {
        rolloutIs,
        ...(rolloutIsThreshold === undefined ? {} : { rolloutIsThreshold }),
        ...(rolloutIsBatchNormalize === undefined ? {} : { rolloutIsBatchNormalize }),
      })
    : undefined;
  const rejected = rolloutRs
    ? rolloutRejectionMask(logRatio, mask, { rolloutRs, threshold: rolloutRsThreshold })
    : undefined;
  const metrics = {
    ...weighted?.metrics,
    ...rejected?.metrics,
    ...offPolicyMetrics({ oldLogProb, rolloutLogProb, mask }),
  };
  return {
    weights: weighted?.weights,
    mask: rejected?.mask ?? mask,
    metrics: Object.fromEntries(Object.entries(metrics).map(([key, x]) => [`rollout_corr/${key}`, x])),
  };
}
