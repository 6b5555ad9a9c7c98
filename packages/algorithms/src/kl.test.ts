import { describe, expect, it } from 'vitest';
import { entropyOf } from './entropy.ts';
import { KL_PENALTIES, klPenalty } from './kl.ts';
import { applyKlPenalty, klController } from './kl-controller.ts';
import { valueLoss } from './value-loss.ts';

describe('klPenalty', () => {
  const at = (d: number, kind: string) => {
    const { kl, gradLogProb } = klPenalty([[d]], [[0]], kind);
    return [kl[0]![0]!, gradLogProb[0]![0]!] as const;
  };
  it('has the slope of its value, or that of k2 with a +', () => {
    for (const kind of KL_PENALTIES)
      for (const d of [-2.5, -0.3, 0.4, 3]) {
        const of = kind.endsWith('+') ? 'k2' : kind;
        expect(at(d, kind)[1], kind).toBeCloseTo((at(d + 1e-6, of)[0] - at(d - 1e-6, of)[0]) / 2e-6, 4);
        expect(at(d, kind)[0]).toBe(at(d, kind.replace('+', ''))[0]);
      }
  });
  it('clamps low_var_kl at 10, without a gradient there', () => {
    expect(at(-30, 'low_var_kl')).toEqual([10, 0]);
    expect(at(30, 'k3')).toEqual([10, 0]);
  });
  it('refuses other kinds', () => {
    expect(() => klPenalty([[1]], [[1]], 'full')).toThrow('kl_penalty full: must be one of kl, kl+');
  });
});

describe('the controller', () => {
  it('moves by at most a fifth of steps / horizon', () => {
    const controller = klController({ type: 'adaptive', klCoef: 1, targetKl: 0.1, horizon: 100 });
    const { update } = controller;
    update(9, 50);
    expect(controller.value).toBeCloseTo(1.1);
    update(0, 100);
    expect(controller.value).toBeCloseTo(0.88);
  });
  it('refuses what it cannot do', () => {
    expect(() => klController({ type: 'adaptive', klCoef: 1 })).toThrow('both must be given');
    expect(() => klController({ type: 'other' as 'fixed', klCoef: 1 })).toThrow('must be fixed or adaptive');
  });
  it('takes the penalty from the reward, masked, with the coefficient of before', () => {
    const controller = klController({ type: 'adaptive', klCoef: 0.5, targetKl: 1, horizon: 2 });
    const { tokenLevelRewards, metrics } = applyKlPenalty({
      tokenLevelScores: [[0, 1]],
      oldLogProbs: [[-1, -1]],
      refLogProb: [[-3, Number.NaN]],
      mask: [[1, 0]],
      kind: 'kl',
      controller,
    });
    expect([...tokenLevelRewards[0]!]).toEqual([-1, 1]);
    expect(metrics).toEqual({
      'actor/reward_kl_penalty': expect.closeTo(2, 6),
      'actor/reward_kl_penalty_coeff': 0.5,
    });
    expect(controller.value).toBeCloseTo(0.55);
  });
});

describe('entropy', () => {
  it('of equal logits is log n with no gradient; banned tokens have no part', () => {
    const { entropy, gradLogits } = entropyOf([3, 3, Number.NEGATIVE_INFINITY, 3]);
    expect(entropy).toBeCloseTo(Math.log(3));
    for (const g of gradLogits) expect(g).toBeCloseTo(0);
  });
});

describe('valueLoss', () => {
  it('takes the worse of plain and clipped', () => {
    const at = (prediction: number) =>
      valueLoss({
        predictions: [[prediction]],
        values: [[0]],
        returns: [[1]],
        mask: [[1]],
        clipRange: 0.2,
        lossAggMode: 'token-mean',
      });
    expect(at(0.5)).toMatchObject({ loss: expect.closeTo(0.32), gradPredictions: [Float64Array.of(-0)] });
    expect(at(-0.5).loss).toBeCloseTo(1.125);
    expect(at(-0.5).gradPredictions[0]![0]).toBeCloseTo(-1.5);
    expect(at(0.5).clipFraction).toBeCloseTo(1, 6);
  });
});
