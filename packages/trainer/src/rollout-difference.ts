/** @file How far the rollout's log-probs are from those of the training forward, under verl's names. */
import type { Trajectory } from '@frame-thinker/core';
import type { Metrics } from './tracker.ts';

/** Collects |p_train − p_rollout| over sampled tokens (probabilities, as verl does; the largest log-prob difference beside it). */
export class RolloutDifference {
  readonly #values: number[] = [];
  #logMax = 0;

  /** `fresh`: log-probs of the training forward, aligned with ids. */
  add({ mask, logProbs }: Pick<Trajectory, 'mask' | 'logProbs'>, fresh: Float32Array): void {
    mask.forEach((m, i) => {
      if (!m) return;
      this.#values.push(Math.abs(Math.exp(fresh[i]!) - Math.exp(logProbs[i]!)));
      this.#logMax = Math.max(this.#logMax, Math.abs(fresh[i]! - logProbs[i]!));
    });
  }

  /** Empty when nothing was compared. */
  metrics(): Metrics {
    const n = this.#values.length;
    if (n === 0) return {};
    const mean = this.#values.reduce((a, b) => a + b, 0) / n;
    const variance = this.#values.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(1, n - 1);
    return {
      'training/rollout_probs_diff_valid': 1,
      'training/rollout_probs_diff_max': this.#values.reduce((a, b) => Math.max(a, b), 0),
      'training/rollout_probs_diff_mean': mean,
      'training/rollout_probs_diff_std': Math.sqrt(variance),
      'training/rollout_log_probs_diff_max': this.#logMax,
      'training/rollout_log_probs_compared': n,
    };
  }
}
