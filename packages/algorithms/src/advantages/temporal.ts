/** @file Estimators with a return per token. */
import { maskedWhiten } from '../masked.ts';
import { mapRows, required } from '../rows.ts';
import type { AdvantageBatch, AdvantageEstimator, Rows } from '../types.ts';

/** Rewards to go of the masked tokens. */
export function rewardsToGo({
  tokenLevelRewards,
  mask,
}: Pick<AdvantageBatch, 'tokenLevelRewards' | 'mask'>): Float64Array[] {
  return mask.map((row, i) => {
    const returns = new Float64Array(row.length);
    let sum = 0;
    for (let t = row.length - 1; t >= 0; t--) {
      if (row[t]) sum += tokenLevelRewards[i]![t]! * row[t]!;
      returns[t] = sum;
    }
    return returns;
  });
}

/** GAE (https://arxiv.org/abs/1506.02438); observation tokens are skipped in the recursion. The advantages are whitened. */
export const gae: AdvantageEstimator = ({ tokenLevelRewards, mask, values }, { gamma = 1, lam = 1 } = {}) => {
  const v: Rows = required(values, 'gae', 'values');
  const raw = mask.map((row, i) => {
    const advantages = new Float64Array(row.length);
    let [nextValue, last] = [0, 0];
    for (let t = row.length - 1; t >= 0; t--) {
      const m = row[t]!;
      const delta = tokenLevelRewards[i]![t]! + gamma * nextValue - v[i]![t]!;
      last = (delta + gamma * lam * last) * m + (1 - m) * last;
      nextValue = v[i]![t]! * m + (1 - m) * nextValue;
      advantages[t] = last;
    }
    return advantages;
  });
  return { advantages: maskedWhiten(raw, mask), returns: mapRows(mask, (i, t) => raw[i]![t]! + v[i]![t]!) };
};

/** REINFORCE++ (https://arxiv.org/abs/2501.03262): discounted returns, whitened over the batch; a masked token resets the return. */
export const reinforcePlusPlus: AdvantageEstimator = ({ tokenLevelRewards, mask }, { gamma = 1 } = {}) => {
  const returns = mask.map((row, i) => {
    const out = new Float64Array(row.length);
    let running = 0;
    for (let t = row.length - 1; t >= 0; t--) {
      running = tokenLevelRewards[i]![t]! + gamma * running;
      out[t] = running;
      running *= row[t]!;
    }
    return out;
  });
  const whitened = maskedWhiten(returns, mask);
  return { advantages: mapRows(mask, (i, t) => whitened[i]![t]! * mask[i]![t]!), returns };
};

/** ReMax (https://arxiv.org/abs/2310.10505): rewards to go minus the reward of a greedy answer. */
export const remax: AdvantageEstimator = (batch) => {
  const baselines = required(batch.rewardBaselines, 'remax', 'rewardBaselines');
  const returns = rewardsToGo(batch);
  return { advantages: mapRows(batch.mask, (i, t) => returns[i]![t]! - baselines[i]! * batch.mask[i]![t]!), returns };
};
