/** @file The loss of bypass mode: no old log-probs are computed, the rollout's stand for them. */
import { AlgorithmError } from '../error.ts';
import { rolloutCorrection } from '../rollout-correction/index.ts';
import type { PolicyLoss } from '../types.ts';
import { vanilla } from './clipped.ts';
import { reinforce } from './unclipped.ts';

/**
 * Importance weights and rejection from log π − log π_rollout (oldLogProb), then the loss of rolloutCorrection.lossType:
 * `reinforce` with the weights, or `ppo_clip` (default), whose ratio is that correction already.
 * @throws AlgorithmError without options.rolloutCorrection, or on another loss type
 */
export const bypassMode: PolicyLoss = (input, options) => {
  if (!options.rolloutCorrection)
    throw new AlgorithmError('policy loss bypass_mode: policy_loss.rollout_correction is needed');
  const { lossType = 'ppo_clip', ...correction } = options.rolloutCorrection;
  const { weights, mask, metrics } = rolloutCorrection(
    { oldLogProb: input.logProb, rolloutLogProb: input.oldLogProb, mask: input.mask },
    correction,
  );
  const { rolloutIsWeights: _, ...plain } = input;
  const run = (): ReturnType<PolicyLoss> => {
    switch (lossType) {
      case 'reinforce':
        return reinforce({ ...plain, mask, ...(weights ? { rolloutIsWeights: weights } : {}) }, options);
      case 'ppo_clip':
        return vanilla({ ...plain, mask }, options);
      default:
        throw new AlgorithmError(`rollout_correction.loss_type ${lossType}: must be reinforce or ppo_clip`);
    }
  };
  const output = run();
  return { ...output, metrics: { ...output.metrics, ...metrics } };
};
