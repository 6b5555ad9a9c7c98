/** @file Losses with a hard trust region: clipped ratios, per token or per sequence, and masks of divergence. */
import { AlgorithmError } from '../error.ts';
import { maskedRowSums } from '../masked.ts';
import { clamp, mapRows, meanOf, sumOf } from '../rows.ts';
import type { PolicyLoss } from '../types.ts';
import { aggregated, clipMetrics, clippedLoss, clipRange, LOG_RATIO_BOUND, logRatio } from './token-loss.ts';

/**
 * PPO's clipped loss (https://arxiv.org/abs/1707.06347) with dual clip (https://arxiv.org/abs/1912.09729):
 * L = max(−A r, −A clip(r)), at most −A c where A < 0.
 */
export const vanilla: PolicyLoss = (input, options) => {
  const range = clipRange(options);
  const { clipRatioC = 3 } = options;
  if (!(clipRatioC > 1)) throw new AlgorithmError(`clip_ratio_c ${clipRatioC}: must be above 1`);
  const ratioAt = logRatio(input, LOG_RATIO_BOUND);
  const { mask } = input;
  // Every token once: the metrics read what the loss found. Nothing is asked where the mask is 0.
  const logs = mask.map((row) => new Float64Array(row.length));
  const clips = mask.map((row) => new Uint8Array(row.length));
  const caps = mask.map((row) => new Uint8Array(row.length));
  const found = aggregated(input, options, (i, t) => {
    const advantage = input.advantages[i]![t]!;
    const log = ratioAt(i, t);
    const ratio = Math.exp(log.value);
    const clipped = clippedLoss(ratio, advantage, range);
    const cap = -advantage * clipRatioC;
    const capped = advantage < 0 && clipped.loss > cap;
    logs[i]![t] = log.value;
    clips[i]![t] = clipped.clips ? 1 : 0;
    caps[i]![t] = capped ? 1 : 0;
    return capped ? { loss: cap, slope: 0 } : { loss: clipped.loss, slope: clipped.slope * ratio * log.slope };
  });
  return {
    ...found,
    metrics: clipMetrics(
      input,
      (i, t) => clips[i]![t] === 1,
      (i, t) => -logs[i]![t]!,
      (i, t) => caps[i]![t] === 1,
    ),
  };
};

/**
 * GSPO (https://arxiv.org/abs/2507.18071): the clipped loss with the sequence's ratio, exp of the mean log ratio, whose gradient
 * goes through each token's own log-prob. Always aggregated as seq-mean-token-mean.
 */
export const gspo: PolicyLoss = (input, options) => {
  const range = clipRange(options);
  const ratioAt = logRatio(input);
  const logs = mapRows(input.mask, (i, t) => ratioAt(i, t).value);
  const sums = maskedRowSums(logs, input.mask);
  const sequence = sums.map((sum, i) => sum / Math.max(1, sumOf(input.mask[i]!)));
  // Capped at e¹⁰ for stability.
  const ratios = sequence.map((log) => Math.exp(Math.min(log, 10)));
  const at = (i: number, t: number) => clippedLoss(ratios[i]!, input.advantages[i]![t]!, range);
  return {
    ...aggregated(input, { ...options, lossAggMode: 'seq-mean-token-mean' }, (i, t) => {
      const { loss, slope } = at(i, t);
      return { loss, slope: sequence[i]! <= 10 ? slope * ratios[i]! : 0 };
    }),
    metrics: clipMetrics(
      input,
      (i, t) => at(i, t).clips,
      (i, t) => -logs[i]![t]!,
    ),
  };
};

/**
 * GMPO (https://arxiv.org/abs/2507.20673): −(mean advantage) · exp(mean of the clipped log ratios) per row, plain mean over all
 * rows. The clip is of the log ratio, and only where it would help the policy.
 */
export const geoMean: PolicyLoss = (input, options) => {
  const { mask, advantages, rolloutIsWeights } = input;
  const { low, high } = clipRange(options);
  const ratioAt = logRatio(input);
  const at = (i: number, t: number) => {
    const log = ratioAt(i, t).value;
    const clipped = clamp(log, -low, high);
    const sign = Math.sign(advantages[i]![t]!);
    return { log, used: sign * Math.min(sign * log, sign * clipped), clips: clipped !== log, sign };
  };
  const lengths = mask.map((row) => sumOf(row) + 1e-8);
  const used = mapRows(mask, (i, t) => (mask[i]![t] ? at(i, t).used : 0));
  const ratios = maskedRowSums(used, mask).map((sum, i) => Math.exp(sum / lengths[i]!));
  const rowAdvantages = maskedRowSums(advantages, mask).map((sum, i) => sum / lengths[i]!);
  const rowWeights = mask.map((row, i) => {
    if (!rolloutIsWeights) return 1;
    const logs = Float64Array.from(row, (m, t) => (m ? Math.log(rolloutIsWeights[i]![t]! + 1e-10) * m : 0));
    return Math.exp(sumOf(logs) / lengths[i]!);
  });
  const losses = ratios.map((ratio, i) => -rowAdvantages[i]! * ratio * rowWeights[i]!);
  return {
    loss: meanOf(losses),
    gradLogProb: mapRows(mask, (i, t) => {
      if (!mask[i]![t]) return 0;
      const { log, used: usedLog, sign } = at(i, t);
      return sign !== 0 && usedLog === log ? (losses[i]! * mask[i]![t]!) / lengths[i]! / mask.length : 0;
    }),
    metrics: clipMetrics(
      input,
      (i, t) => at(i, t).clips && advantages[i]![t]! > 0,
      (i, t) => -at(i, t).log,
      (i, t) => at(i, t).clips && advantages[i]![t]! < 0,
    ),
  };
};

/** CISPO (https://arxiv.org/abs/2506.13585): −sg(clip(r)) A log π: clipped tokens keep a gradient. */
export const cispo: PolicyLoss = (input, options) => {
  const { low, high } = clipRange(options);
  const ratioAt = logRatio(input, LOG_RATIO_BOUND);
  const at = (i: number, t: number) => {
    const log = ratioAt(i, t).value;
    const ratio = Math.exp(log);
    const clipped = clamp(ratio, 1 - low, 1 + high);
    return { log, clips: ratio !== clipped, slope: -clipped * input.advantages[i]![t]! };
  };
  return {
    ...aggregated(input, options, (i, t) => {
      const { slope } = at(i, t);
      return { loss: slope * input.logProb[i]![t]!, slope };
    }),
    metrics: clipMetrics(
      input,
      (i, t) => at(i, t).clips,
      (i, t) => -at(i, t).log,
    ),
  };
};

/** Does a token stay in the trust region? p and q: its probability now and before. */
type Inside = (p: number, q: number, positive: boolean, range: { low: number; high: number }) => boolean;

/**
 * DPPO (https://arxiv.org/abs/2602.04879): −sg(min(r, c)) A log π where a divergence of the two-way distribution (this token or
 * another) is within bounds, 0 elsewhere. clipRatio is the bound of the divergence, clipRatioC the cap of the ratio.
 */
const dppo =
  (inside: Inside): PolicyLoss =>
  (input, options) => {
    const range = clipRange(options);
    const { clipRatioC = 20 } = options;
    const ratioAt = logRatio(input, LOG_RATIO_BOUND);
    const at = (i: number, t: number) => {
      const log = ratioAt(i, t).value;
      const advantage = input.advantages[i]![t]!;
      const [p, q] = [Math.exp(input.logProb[i]![t]!), Math.exp(input.oldLogProb[i]![t]!)];
      const ratio = Math.exp(log);
      const valid = inside(p, q, advantage > 0, range);
      return {
        log,
        valid,
        capped: valid && ratio > clipRatioC,
        slope: valid ? -advantage * Math.min(ratio, clipRatioC) : 0,
      };
    };
    return {
      ...aggregated(input, options, (i, t) => {
        const { slope } = at(i, t);
        return { loss: slope * input.logProb[i]![t]!, slope };
      }),
      metrics: clipMetrics(
        input,
        (i, t) => !at(i, t).valid,
        (i, t) => -at(i, t).log,
        (i, t) => at(i, t).capped,
      ),
    };
  };

/** DPPO with total variation, |p − q|. */
export const dppoTv = dppo((p, q, positive, { low, high }) => (positive ? p - q <= high : p - q >= -low));

/** DPPO with the binary KL divergence of q from p; a move towards q always passes. */
export const dppoKl = dppo((p, q, positive, { low, high }) => {
  const kl = q * Math.log(q / p) + (1 - q) * Math.log((1 - q + 1e-8) / (1 - p + 1e-8));
  return positive ? kl <= high || p <= q : kl <= low || p >= q;
});
