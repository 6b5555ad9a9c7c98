/** @file Losses without a hard trust region. */
import { AlgorithmError } from '../error.ts';
import { maskedMean, maskedMeanOf, maskTotal } from '../masked.ts';
import { meanOf } from '../rows.ts';
import type { PolicyLoss, PolicyLossInput } from '../types.ts';
import { aggregated, clipMetrics, clippedLoss, clipRange, LOG_RATIO_BOUND, logRatio } from './token-loss.ts';

/** −A log π. */
const policyGradient = (input: PolicyLossInput) => (i: number, t: number) => ({
  loss: -input.advantages[i]![t]! * input.logProb[i]![t]!,
  slope: -input.advantages[i]![t]!,
});

/** Mean over the mask of log π_old − log π. */
const klMetric = (input: PolicyLossInput): Record<string, number> => {
  const ratioAt = logRatio(input);
  return { 'actor/ppo_kl': maskedMeanOf(input.mask, (i, t) => -ratioAt(i, t).value) };
};

/** GPG (https://arxiv.org/abs/2504.02546): plain policy gradient, no metrics. */
export const gpgLoss: PolicyLoss = (input, options) => ({
  ...aggregated(input, options, policyGradient(input)),
  metrics: {},
});

/** REINFORCE: plain policy gradient; oldLogProb is the rollout's. */
export const reinforce: PolicyLoss = (input, options) => ({
  ...aggregated(input, options, policyGradient(input)),
  metrics: klMetric(input),
});

/**
 * DRO (https://arxiv.org/abs/2405.19107): −(A log π − β/2 (log π − log π_old)²).
 * @throws AlgorithmError without a positive droBeta
 */
export const dro: PolicyLoss = (input, options) => {
  const { droBeta } = options;
  if (!droBeta || droBeta <= 0) throw new AlgorithmError(`policy_loss.dro_beta ${droBeta}: dro needs a positive value`);
  const gradient = policyGradient(input);
  const ratioAt = logRatio(input);
  return {
    ...aggregated(input, options, (i, t) => {
      const { loss, slope } = gradient(i, t);
      const log = ratioAt(i, t).value;
      return { loss: loss + 0.5 * droBeta * log * log, slope: slope + droBeta * log };
    }),
    metrics: klMetric(input),
  };
};

/**
 * SAPO (https://arxiv.org/abs/2511.20347): −A · 4/τ · σ(τ (r − 1)), τ by the sign of A. Always aggregated as seq-mean-token-mean.
 */
export const sapo: PolicyLoss = (input, options) => {
  const { tauPos = 1, tauNeg = 1.05 } = options;
  const ratioAt = logRatio(input, LOG_RATIO_BOUND);
  return {
    ...aggregated(input, { ...options, lossAggMode: 'seq-mean-token-mean' }, (i, t) => {
      const advantage = input.advantages[i]![t]!;
      const tau = advantage > 0 ? tauPos : tauNeg;
      const log = ratioAt(i, t);
      const ratio = Math.exp(log.value);
      const gate = 1 / (1 + Math.exp(-tau * (ratio - 1)));
      return { loss: (-advantage * gate * 4) / tau, slope: -advantage * 4 * gate * (1 - gate) * ratio * log.slope };
    }),
    metrics: clipMetrics(
      input,
      () => false,
      (i, t) => -ratioAt(i, t).value,
    ),
  };
};

/**
 * Clip-Cov (https://arxiv.org/abs/2505.22617): the clipped loss without a few random tokens whose covariance of advantage and
 * log-prob is between the bounds. options.permutation(n) draws their order.
 */
export const clipCov: PolicyLoss = (input, options) => {
  const { mask, advantages, logProb } = input;
  const { clipCovRatio = 0.0002, clipCovLb = 1, clipCovUb = 5, permutation } = options;
  if (!(clipCovRatio > 0)) throw new AlgorithmError(`clip_cov_ratio ${clipCovRatio}: must be above 0`);
  if (!permutation) throw new AlgorithmError('clip_cov: options.permutation is needed, it draws random tokens');
  const range = clipRange(options);
  const ratioAt = logRatio(input);
  const at = (i: number, t: number) => {
    const ratio = Math.exp(ratioAt(i, t).value);
    return { ratio, ...clippedLoss(ratio, advantages[i]![t]!, range) };
  };
  const [meanAdvantage, meanLogProb] = [maskedMean(advantages, mask), maskedMean(logProb, mask)];
  const candidates: [number, number][] = [];
  for (const [i, row] of mask.entries())
    for (let t = 0; t < row.length; t++) {
      if (!row[t] || at(i, t).clips) continue;
      const covariance = (advantages[i]![t]! - meanAdvantage) * (logProb[i]![t]! - meanLogProb);
      if (covariance > clipCovLb && covariance < clipCovUb) candidates.push([i, t]);
    }
  const count = Math.min(candidates.length, Math.max(1, Math.trunc(clipCovRatio * maskTotal(mask))));
  const order = candidates.length > 0 ? permutation(candidates.length) : [];
  const dropped = mask.map(() => new Set<number>());
  for (let k = 0; k < count; k++) {
    const [i, t] = candidates[order[k]!]!;
    dropped[i]!.add(t);
  }
  const { 'actor/pg_clipfrac_lower': _, ...metrics } = clipMetrics(
    input,
    (i, t) => dropped[i]!.has(t),
    (i, t) => -ratioAt(i, t).value,
  );
  return {
    ...aggregated(input, options, (i, t) => {
      if (dropped[i]!.has(t)) return { loss: 0, slope: 0 };
      const { loss, slope, ratio } = at(i, t);
      return { loss, slope: slope * ratio };
    }),
    metrics,
  };
};

/**
 * KL-Cov (https://arxiv.org/abs/2505.22617): −A r, plus ppoKlCoef · |log r| on the share klCovRatio of tokens (at least one)
 * with the largest covariance of advantage and log-prob.
 */
export const klCov: PolicyLoss = (input, options) => {
  const { mask, advantages, logProb } = input;
  const { klCovRatio = 0.0002, ppoKlCoef = 0.1 } = options;
  if (!(klCovRatio > 0)) throw new AlgorithmError(`kl_cov_ratio ${klCovRatio}: must be above 0`);
  const tokens: { i: number; t: number; advantage: number; log: number }[] = [];
  for (const [i, row] of mask.entries())
    for (let t = 0; t < row.length; t++)
      if (row[t]) tokens.push({ i, t, advantage: advantages[i]![t]!, log: logProb[i]![t]! });
  const meanAdvantage = meanOf(tokens.map((x) => x.advantage));
  const meanLogProb = meanOf(tokens.map((x) => x.log));
  const covariance = (x: { advantage: number; log: number }) => (x.advantage - meanAdvantage) * (x.log - meanLogProb);
  const penalised = mask.map(() => new Set<number>());
  const count = Math.min(tokens.length, Math.max(1, Math.trunc(tokens.length * klCovRatio)));
  for (const { i, t } of tokens.sort((a, b) => covariance(b) - covariance(a)).slice(0, count)) penalised[i]!.add(t);
  const ratioAt = logRatio(input);
  return {
    ...aggregated(input, options, (i, t) => {
      const log = ratioAt(i, t).value;
      const plain = -advantages[i]![t]! * Math.exp(log);
      const coefficient = penalised[i]!.has(t) ? ppoKlCoef : 0;
      return { loss: plain + coefficient * Math.abs(log), slope: plain + coefficient * Math.sign(log) };
    }),
    metrics: { 'actor/ppo_kl': maskedMeanOf(mask, (i, t) => Math.abs(ratioAt(i, t).value)) },
  };
};
