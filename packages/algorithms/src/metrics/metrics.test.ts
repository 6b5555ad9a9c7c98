import { describe, expect, it } from 'vitest';
import { groupIds, groupMeanStd } from '../groups.ts';
import { maskedMean, maskedVar, responseMask } from '../masked.ts';
import { dataMetrics } from './data-metrics.ts';
import { majorityValue } from './majority.ts';
import { seqlenUnbalance, throughputMetrics, timingMetrics } from './timing.ts';
import { varianceProxyMetrics } from './variance-proxy.ts';

describe('data metrics', () => {
  const batch = {
    tokenLevelScores: [[0, 1], [3], [0]],
    tokenLevelRewards: [[-1, 1], [2], [0]],
    advantages: [[1, 2], [-4], [99]],
    returns: [[1, 1], [3], [99]],
    mask: [[1, 0], [1], [0]],
    promptLengths: [4, 5, 5],
    responseLengths: [2, 1, 0],
    maxPromptLength: 5,
    maxResponseLength: 2,
  };
  it('take scores from rows with a response and advantages from sampled tokens', () => {
    expect(dataMetrics(batch)).toMatchObject({
      'critic/score/mean': 2,
      'critic/rewards/min': 0,
      'critic/advantages/mean': -1.5,
      'critic/returns/max': 3,
      'response_length/mean': 1,
      'response_length/clip_ratio': 1 / 3,
      'response_length_non_aborted/mean': 1.5,
      'response/aborted_ratio': expect.closeTo(1 / 3),
      'prompt_length/clip_ratio': 2 / 3,
    });
    expect(Object.keys(dataMetrics(batch)).some((key) => key.startsWith('critic/values'))).toBe(false);
  });
  it('have values, turns and tool calls when given', () => {
    const metrics = dataMetrics({
      ...batch,
      values: [[1, 0], [3], [0]],
      numTurns: [1, 3, 2],
      toolCallCounts: [0, 2, 1],
    });
    expect(metrics['critic/vf_explained_var']).toBeCloseTo(1);
    expect(metrics['num_turns/max']).toBe(3);
    expect(metrics['tool_call_counts/mean']).toBe(1);
  });
  it('refuse a batch without any response', () => {
    expect(() => dataMetrics({ ...batch, responseLengths: [0, 0, 0] })).toThrow('no trajectory of this batch');
  });
});

describe('timing', () => {
  it('divides by response tokens for gen, by all for the others it knows', () => {
    expect(timingMetrics({ gen: 2, update_actor: 3, step: 9 }, { prompt: 20, response: 10 })).toEqual({
      'timing_s/gen': 2,
      'timing_s/update_actor': 3,
      'timing_s/step': 9,
      'timing_per_token_ms/gen': 200,
      'timing_per_token_ms/update_actor': 100,
    });
    expect(() => timingMetrics({ gen: 2 }, { prompt: 0, response: 0 })).toThrow(
      'timing of gen: the batch has no token',
    );
  });
  it('throughput and unbalance', () => {
    expect(throughputMetrics([10, 30], 4, 2)['perf/throughput']).toBe(5);
    expect(
      seqlenUnbalance(
        [9, 1, 2, 8, 5],
        [
          [0, 1],
          [2, 3, 4],
        ],
        'p',
      ),
    ).toEqual({
      'p/min': 5,
      'p/max': 10,
      'p/minmax_diff': 5,
      'p/balanced_min': 10,
      'p/balanced_max': 15,
      'p/mean': 12.5,
    });
  });
});

describe('variance proxies', () => {
  const batch = {
    oldLogProbs: [[Math.log(0.5), 0], [Math.log(0.25)]],
    sumPiSquared: [[0.5, 9], [0.5]],
    advantages: [[2, 9], [1]],
    mask: [[1, 0], [1]],
  };
  it('are A² W over rows, less the signal', () => {
    const metrics = varianceProxyMetrics({ ...batch, gradientNorm: 0.5 });
    expect(metrics['variance_proxy/proxy2_total_power']).toBeCloseTo((4 * 0.5 + 1) / 2, 6);
    expect(metrics['variance_proxy/proxy3_pure_noise']).toBeCloseTo(1.5 - 0.25, 6);
    expect(metrics['variance_proxy/expected_w']).toBeCloseTo(0.75);
    expect(varianceProxyMetrics(batch)['variance_proxy/proxy3_pure_noise']).toBe(0);
  });
  it('take importance weights out of W and put their mean in', () => {
    const metrics = varianceProxyMetrics({ ...batch, rolloutIsWeights: [[2, 1], [1]] });
    expect(metrics['variance_proxy/proxy2_total_power']).toBeCloseTo((4 * 4 * 0.5 + 1) / 2, 6);
    expect(metrics['variance_proxy/expected_w']).toBeCloseTo((4 * 0.5 + 1) / 2);
  });
});

describe('helpers', () => {
  it('majority: the first vote seen wins a tie, with its first value', () => {
    const vote = (v: string, value: number) => ({ vote: v, value });
    expect(majorityValue([vote('b', 1), vote('a', 2), vote('a', 3), vote('b', 4)])).toBe(1);
    expect(majorityValue([vote('b', 1), vote('a', 2), vote('a', 3)])).toBe(2);
    expect(() => majorityValue([])).toThrow('no sample');
  });
  it('group ids: integers as they are, else ranks', () => {
    expect(groupIds(['3', '1', '3'])).toEqual([3, 1, 3]);
    expect(groupIds(['u2', 'u0', 'u2'])).toEqual([1, 0, 1]);
  });
  it('group mean and std: one of a kind 0 and 1, the variance floored', () => {
    const { mean, std, count } = groupMeanStd([1, 3, 5, 2, 2], [0, 0, 1, 2, 2]);
    expect([mean, count]).toEqual([
      [2, 0, 2],
      [2, 1, 2],
    ]);
    expect(std).toEqual([expect.closeTo(Math.SQRT2, 6), 1, expect.closeTo(1e-3, 6)]);
  });
  it('masked figures ignore NaN outside the mask', () => {
    expect(maskedMean([[1, Number.NaN], [3]], [[1, 0], [1]])).toBeCloseTo(2, 7);
    expect(maskedVar([[1, Number.NaN], [3]], [[1, 0], [1]])).toBeCloseTo(2, 6);
    expect(() => maskedVar([[1]], [[1]])).toThrow('selects 1 tokens');
  });
  it('response mask: up to and with the first end', () => {
    expect(
      responseMask(
        [
          [5, 1, 2, 1],
          [3, 3],
        ],
        [1, 2],
      ).map((row) => [...row]),
    ).toEqual([
      [1, 1, 0, 0],
      [1, 1],
    ]);
  });
});
