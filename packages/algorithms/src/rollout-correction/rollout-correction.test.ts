import { describe, expect, it } from 'vitest';
import { rolloutCorrection, rolloutCorrectionWeights, rolloutRejectionMask } from './index.ts';

const logs = [[Math.log(4), Math.log(0.5)], [0, Math.log(0.1)], [5]];
const mask = [[1, 1], [1, 0], [0]];
const rowsOf = (rows: readonly Float64Array[]) => rows.map((row) => Array.from(row, (x) => Number(x.toFixed(9))));

describe('importance weights', () => {
  it('are truncated at the threshold, 0 outside the mask', () => {
    expect(rowsOf(rolloutCorrectionWeights(logs, mask, { rolloutIs: 'token' }).weights)).toEqual([
      [2, 0.5],
      [1, 0],
      [0],
    ]);
  });
  it('of a sequence are the product', () => {
    const { weights } = rolloutCorrectionWeights(logs, mask, { rolloutIs: 'sequence', rolloutIsThreshold: 5 });
    expect(rowsOf(weights)).toEqual([[2, 2], [1, 0], [0]]);
  });
  it('outside lower_upper become 0 (IcePop), and are counted', () => {
    const { weights, metrics } = rolloutCorrectionWeights(logs, mask, {
      rolloutIs: 'token',
      rolloutIsThreshold: '0.6_5',
    });
    expect(rowsOf(weights)).toEqual([[4, 0], [1, 0], [0]]);
    expect(metrics.rollout_is_oob_ratio).toBeCloseTo(1 / 3);
  });
  it('are divided by their mean when asked', () => {
    const { weights, metrics } = rolloutCorrectionWeights(logs, mask, {
      rolloutIs: 'token',
      rolloutIsBatchNormalize: true,
    });
    expect(metrics.rollout_is_batch_norm_factor).toBeCloseTo(3.5 / 3);
    expect(weights.flatMap((row) => [...row]).reduce((a, b) => a + b)).toBeCloseTo(3);
  });
});

describe('rejection', () => {
  it('drops tokens, or whole rows', () => {
    const reject = (rolloutRs: string, threshold: string | number) =>
      rowsOf(rolloutRejectionMask(logs, mask, { rolloutRs, threshold }).mask);
    expect(reject('token_k1', '0.2_3')).toEqual([[1, 1], [1, 0], [0]]);
    expect(reject('token_k1', '0.5_1.5')).toEqual([[0, 0], [1, 0], [0]]);
    expect(reject('seq_max_k2', 0.5)).toEqual([[0, 0], [1, 0], [0]]);
    expect(reject('token_k2,seq_sum_k1', '0.5,3')).toEqual([[0, 1], [1, 0], [0]]);
  });
  it('refuses unknown options and bad thresholds by name', () => {
    const reject = (rolloutRs: string | null, threshold: string | number | null) => () =>
      rolloutRejectionMask(logs, mask, { rolloutRs, threshold });
    expect(reject('token_k9', 1)).toThrow('rollout_rs token_k9: must be one of token_k1');
    expect(reject('token_k2', '0.1_2')).toThrow('takes one upper bound');
    expect(reject('token_k1', '2_1')).toThrow('the lower bound is above the upper');
    expect(reject('token_k1', -1)).toThrow('must be a positive number');
    expect(reject('token_k1', null)).toThrow('rollout_rs_threshold is needed');
    expect(reject('token_k1,token_k2,token_k3', '1,2')).toThrow('gives 2 thresholds for 3 options');
    expect(reject(null, 1)).toThrow('names no option');
    expect(() => rolloutRejectionMask(logs, [[0, 0], [0, 0], [0]], { rolloutRs: 'token_k1', threshold: 2 })).toThrow(
      'selects no token',
    );
  });
});

describe('rolloutCorrection', () => {
  it('without options only measures: nothing off policy is 0 everywhere', () => {
    const rows = [[-1, -2], [-0.5, -1], [-3]];
    const { weights, mask: kept, metrics } = rolloutCorrection({ oldLogProb: rows, rolloutLogProb: rows, mask }, {});
    expect([weights, kept]).toEqual([undefined, mask]);
    expect(metrics['rollout_corr/kl']).toBeCloseTo(0);
    expect(metrics['rollout_corr/chi2_seq']).toBeCloseTo(0);
    expect(metrics['rollout_corr/ppl_ratio']).toBeCloseTo(1);
  });
});
