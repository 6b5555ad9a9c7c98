/** @file Estimators of one reward a trajectory, compared inside its group (question). Every token gets the row's advantage. */
import { AlgorithmError } from '../error.ts';
import { groupIds, groupMeanStd, groupStatistics, groupsOf } from '../groups.ts';
import { maskedWhiten } from '../masked.ts';
import { mapRows, required, spread, stdOf, sumOf } from '../rows.ts';
import type { AdvantageBatch, AdvantageEstimator, Advantages } from '../types.ts';

const scoresOf = ({ tokenLevelRewards }: AdvantageBatch): number[] => tokenLevelRewards.map(sumOf);
const indexOf = ({ index }: AdvantageBatch, name: string): readonly string[] => required(index, name, 'index');

/** The same numbers as advantages and as returns. */
const both = (advantages: Float64Array[]): Advantages => ({ advantages, returns: advantages });

function grpoScores(scores: readonly number[], index: readonly string[], byStd: boolean, epsilon: number): number[] {
  const { mean, std } = groupStatistics(scores, index);
  return scores.map((score, i) => (score - mean[i]!) / (byStd ? std[i]! + epsilon : 1));
}

/** GRPO (https://arxiv.org/abs/2402.03300): (r − mean) / (std + ε); without the std, Dr.GRPO (https://arxiv.org/abs/2503.20783). */
export const grpo: AdvantageEstimator = (batch, { normAdvByStdInGrpo = true, epsilon = 1e-6 } = {}) =>
  both(spread(grpoScores(scoresOf(batch), indexOf(batch, 'grpo'), normAdvByStdInGrpo, epsilon), batch.mask));

/** GRPO with float32 sums and the variance floored at ε. */
export const grpoVectorized: AdvantageEstimator = (batch, { normAdvByStdInGrpo = true, epsilon = 1e-6 } = {}) => {
  const scores = scoresOf(batch);
  const ids = groupIds(indexOf(batch, 'grpo_vectorized'));
  const { mean, std } = groupMeanStd(scores, ids, epsilon);
  const advantages = scores.map((score, i) => {
    const centred = Math.fround(score) - mean[ids[i]!]!;
    return normAdvByStdInGrpo ? centred / (std[ids[i]!]! + epsilon) : centred;
  });
  return both(spread(advantages, batch.mask));
};

/** Pass@k (https://arxiv.org/abs/2503.19595): the best of a group gets its lead over the second, the others 0. */
export const grpoPassk: AdvantageEstimator = (batch, { normAdvByStdInGrpo = true, epsilon = 1e-6 } = {}) => {
  const scores = scoresOf(batch);
  const advantages = new Float64Array(scores.length);
  for (const [key, rows] of groupsOf(indexOf(batch, 'grpo_passk'))) {
    if (rows.length < 2)
      throw new AlgorithmError(`grpo_passk: group ${key} has one trajectory, it needs 2 (rollout.n of 2 or more)`);
    const [first, second] = [...rows].sort((a, b) => scores[b]! - scores[a]!);
    const lead = scores[first!]! - scores[second!]!;
    advantages[first!] = normAdvByStdInGrpo ? lead / (stdOf(rows.map((i) => scores[i]!)) + epsilon) : lead;
  }
  return both(spread(advantages, batch.mask));
};

/** REINFORCE++ with a baseline (https://arxiv.org/abs/2501.03262): r − group mean, whitened over the batch's tokens. */
export const reinforcePlusPlusBaseline: AdvantageEstimator = (batch) => {
  const scores = scoresOf(batch);
  const { mean } = groupStatistics(scores, indexOf(batch, 'reinforce_plus_plus_baseline'));
  const centred = spread(
    scores.map((score, i) => score - mean[i]!),
    batch.mask,
  );
  return both(masked(maskedWhiten(centred, batch.mask), batch.mask));
};

const masked = (values: Float64Array[], mask: AdvantageBatch['mask']): Float64Array[] =>
  mapRows(mask, (i, t) => (mask[i]![t] ? values[i]![t]! * mask[i]![t]! : 0));

/** RLOO (https://arxiv.org/abs/2402.14740): r − the mean of the others, = (r − mean) n / (n − 1). A group of one keeps r. */
export const rloo: AdvantageEstimator = (batch) => {
  const scores = scoresOf(batch);
  const advantages = [...scores];
  for (const rows of groupsOf(indexOf(batch, 'rloo')).values()) leaveOneOut(scores, rows, advantages);
  return both(spread(advantages, batch.mask));
};

function leaveOneOut(scores: readonly number[], rows: readonly number[], advantages: number[]): void {
  const n = rows.length;
  if (n < 2) return;
  const total = sumOf(rows.map((i) => scores[i]!));
  for (const i of rows) advantages[i] = (n * scores[i]! - total) / (n - 1);
}

/** RLOO where a group of one gets 0. */
export const rlooVectorized: AdvantageEstimator = (batch) => {
  const scores = scoresOf(batch);
  const advantages = new Array<number>(scores.length).fill(0);
  for (const rows of groupsOf(indexOf(batch, 'rloo_vectorized')).values()) leaveOneOut(scores, rows, advantages);
  return both(spread(advantages, batch.mask));
};

/** OPO (https://arxiv.org/abs/2505.23585): the baseline is the mean weighted by response lengths. */
export const opo: AdvantageEstimator = (batch) => {
  const scores = scoresOf(batch);
  const lengths = batch.mask.map(sumOf);
  const advantages = [...scores];
  for (const rows of groupsOf(indexOf(batch, 'opo')).values()) {
    if (rows.length < 2) continue;
    const baseline = sumOf(rows.map((i) => lengths[i]! * scores[i]!)) / sumOf(rows.map((i) => lengths[i]!));
    for (const i of rows) advantages[i] = scores[i]! - baseline;
  }
  return both(spread(advantages, batch.mask));
};

/** GPG (https://arxiv.org/abs/2504.02546): r − group mean, scaled by rows / rows with a reward other than 0. */
export const gpg: AdvantageEstimator = (batch) => {
  const scores = scoresOf(batch);
  const { mean } = groupStatistics(scores, indexOf(batch, 'gpg'));
  const alpha = scores.length / Math.max(1, scores.filter((score) => score !== 0).length);
  return both(
    spread(
      scores.map((score, i) => alpha * (score - mean[i]!)),
      batch.mask,
    ),
  );
};

/** GDPO (https://arxiv.org/abs/2601.05242): GRPO of each named score, their weighted sum whitened over the batch's tokens. */
export const gdpo: AdvantageEstimator = (batch, options = {}) => {
  const { normAdvByStdInGrpo = true, epsilon = 1e-6, gdpoRewardKeys, gdpoRewardWeights } = options;
  const index = indexOf(batch, 'gdpo');
  const parts = gdpoRewardKeys?.map((key) => {
    const scores = batch.scores?.[key];
    if (!scores)
      throw new AlgorithmError(
        `gdpo: reward key ${key} is not among the scores (${Object.keys(batch.scores ?? {}).join(', ')})`,
      );
    return Array.from(scores);
  }) ?? [scoresOf(batch)];
  const sums = new Array<number>(index.length).fill(0);
  for (const [k, scores] of parts.entries())
    for (const [i, a] of grpoScores(scores, index, normAdvByStdInGrpo, epsilon).entries())
      sums[i]! += (gdpoRewardWeights?.[k] ?? 1) * a;
  return both(masked(maskedWhiten(spread(sums, batch.mask), batch.mask), batch.mask));
};
