/** @file The coefficient of the KL penalty in the reward. */
import { AlgorithmError } from './error.ts';
import { klPenalty } from './kl.ts';
import { maskedRowMeans } from './masked.ts';
import { clamp, mapRows, meanOf } from './rows.ts';
import type { Rows } from './types.ts';

export interface KlController {
  /** The coefficient. */
  value: number;
  /** @param currentKl the measured KL; steps: rows of the batch */
  update(currentKl: number, steps: number): void;
}

export interface KlControllerOptions {
  type: 'fixed' | 'adaptive';
  klCoef: number;
  /** adaptive: the KL that is aimed at. */
  targetKl?: number;
  /** adaptive: rows over which the coefficient adapts. */
  horizon?: number;
}

/**
 * A fixed coefficient, or one that grows and shrinks with the KL: × (1 + clip(kl / target − 1, ±0.2) · steps / horizon)
 * (https://arxiv.org/abs/1909.08593).
 * @throws AlgorithmError on another type, or an adaptive one without targetKl and a positive horizon
 */
export function klController({ type, klCoef, targetKl, horizon }: KlControllerOptions): KlController {
  if (type === 'fixed') return { value: klCoef, update: () => {} };
  if (type !== 'adaptive') throw new AlgorithmError(`kl_ctrl.type ${type}: must be fixed or adaptive`);
  if (targetKl === undefined || horizon === undefined || horizon <= 0)
    throw new AlgorithmError(
      `kl_ctrl adaptive: target_kl ${targetKl} and horizon ${horizon}: both must be given, horizon above 0`,
    );
  const controller: KlController = {
    value: klCoef,
    update: (currentKl, steps) => {
      controller.value *= 1 + (clamp(currentKl / targetKl - 1, -0.2, 0.2) * steps) / horizon;
    },
  };
  return controller;
}

/** scores − coefficient · (old − ref), without a mask. */
export function penalisedRewards(
  scores: Rows,
  oldLogProb: Rows,
  refLogProb: Rows,
  coefficient: number,
): Float64Array[] {
  return mapRows(scores, (i, t) => scores[i]![t]! - (oldLogProb[i]![t]! - refLogProb[i]![t]!) * coefficient);
}

/**
 * Takes the KL from a reference policy out of the reward, and updates the controller with the KL of this batch (a mean per row,
 * then over rows; an empty row counts as 0).
 */
export function applyKlPenalty({
  tokenLevelScores,
  oldLogProbs,
  refLogProb,
  mask,
  kind,
  controller,
}: {
  tokenLevelScores: Rows;
  oldLogProbs: Rows;
  refLogProb: Rows;
  mask: Rows;
  kind: string;
  controller: KlController;
}): { tokenLevelRewards: Float64Array[]; metrics: Record<string, number> } {
  const { kl } = klPenalty(oldLogProbs, refLogProb, kind);
  const coefficient = controller.value;
  const currentKl = meanOf(maskedRowMeans(kl, mask));
  controller.update(currentKl, mask.length);
  return {
    tokenLevelRewards: mapRows(
      tokenLevelScores,
      (i, t) => tokenLevelScores[i]![t]! - (mask[i]![t] ? coefficient * kl[i]![t]! * mask[i]![t]! : 0),
    ),
    metrics: { 'actor/reward_kl_penalty': currentKl, 'actor/reward_kl_penalty_coeff': coefficient },
  };
}
