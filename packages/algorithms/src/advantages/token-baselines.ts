/**
 * @file The optimal token baseline: at each step, the returns of a group weighted by the squared length of the score function so
 * far, W_t = Σ_{j≤t} (1 − 2π_j + Σπ²).
 */
import { groupsOf } from '../groups.ts';
import { mapRows, required, sumOf } from '../rows.ts';
import type { AdvantageBatch, AdvantageEstimator } from '../types.ts';
import { rewardsToGo } from './temporal.ts';

/** W_t of each row. */
function cumulativeWeights({ mask, oldLogProbs, sumPiSquared, rolloutIsWeights }: AdvantageBatch, name: string) {
  const logProbs = required(oldLogProbs, name, 'oldLogProbs');
  const squares = required(sumPiSquared, name, 'sumPiSquared');
  return mask.map((row, i) => {
    const out = new Float64Array(row.length);
    let sum = 0;
    for (let t = 0; t < row.length; t++) {
      const weight = (rolloutIsWeights?.[i]?.[t] ?? 1) ** 2;
      if (row[t]) sum += (1 - 2 * Math.exp(logProbs[i]![t]!) + squares[i]![t]!) * weight * row[t]!;
      out[t] = sum;
    }
    return out;
  });
}

interface Group {
  rows: readonly number[];
  /** Steps to compute, and for a row the return and W at a step; undefined where the row has none. */
  steps: number;
  at: (row: number, step: number) => { value: number; weight: number } | undefined;
  lengths: readonly number[];
  handleZeroTail: boolean;
  epsilon: number;
}

/**
 * The baseline of each row of a group at each step. With handleZeroTail the part of the longest row that no other reaches has
 * baseline 0: there it would be its own return.
 */
function baselines({ rows, steps, at, lengths, handleZeroTail, epsilon }: Group): Map<number, Float64Array> {
  const common = Float64Array.from({ length: steps }, (_, step) => {
    let [numerator, denominator] = [0, 0];
    for (const row of rows) {
      const here = at(row, step);
      if (!here) continue;
      numerator += here.value * here.weight;
      denominator += here.weight;
    }
    return numerator / (denominator + epsilon);
  });
  const result = new Map(rows.map((row) => [row, common]));
  if (!handleZeroTail) return result;
  const [longest, second] = [...rows].sort((a, b) => lengths[b]! - lengths[a]!);
  const reach = lengths[second!]!;
  if (lengths[longest!]! > reach) result.set(longest!, common.slice().fill(0, reach));
  return result;
}

/** Optimal token baseline, by position in the row. */
export const optimalTokenBaseline: AdvantageEstimator = (batch, { handleZeroTail = false, epsilon = 1e-8 } = {}) => {
  const { mask } = batch;
  const index = required(batch.index, 'optimal_token_baseline', 'index');
  const returns = rewardsToGo(batch);
  const weights = cumulativeWeights(batch, 'optimal_token_baseline');
  const lengths = mask.map(sumOf);
  const advantages = mapRows(mask, (i, t) => returns[i]![t]! * mask[i]![t]!);
  for (const rows of groupsOf(index).values()) {
    if (rows.length < 2) continue;
    const steps = Math.max(...rows.map((i) => mask[i]!.length));
    const at = (i: number, t: number) =>
      mask[i]![t] ? { value: returns[i]![t]!, weight: weights[i]![t]! } : undefined;
    const found = baselines({ rows, steps, at, lengths, handleZeroTail, epsilon });
    for (const i of rows) {
      const baseline = found.get(i)!;
      for (let t = 0; t < mask[i]!.length; t++) advantages[i]![t]! -= baseline[t]! * mask[i]![t]!;
    }
  }
  return { advantages, returns };
};

/** Optimal token baseline of multi-turn rows: by the number of the sampled token, observation tokens left out. */
export const tirOptimalTokenBaseline: AdvantageEstimator = (batch, { handleZeroTail = true, epsilon = 1e-8 } = {}) => {
  const { mask } = batch;
  const index = required(batch.index, 'tir_optimal_token_baseline', 'index');
  const returns = rewardsToGo(batch);
  const weights = cumulativeWeights(batch, 'tir_optimal_token_baseline');
  const positions = mask.map((row) => Array.from(row, (m, t) => (m ? t : -1)).filter((t) => t >= 0));
  const lengths = positions.map((p) => p.length);
  const advantages = mapRows(mask, (i, t) => returns[i]![t]! * mask[i]![t]!);
  for (const all of groupsOf(index).values()) {
    const rows = all.filter((i) => lengths[i]! > 0);
    if (rows.length < 2) continue;
    const steps = Math.max(...rows.map((i) => lengths[i]!));
    const at = (i: number, step: number) => {
      const t = positions[i]![step];
      return t === undefined ? undefined : { value: returns[i]![t]!, weight: weights[i]![t]! };
    };
    const found = baselines({ rows, steps, at, lengths, handleZeroTail, epsilon });
    for (const i of rows) for (const [step, t] of positions[i]!.entries()) advantages[i]![t]! -= found.get(i)![step]!;
  }
  return { advantages, returns };
};
