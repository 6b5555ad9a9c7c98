import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ADVANTAGE_ESTIMATORS } from './index.ts';

const run = (name: string, ...args: Parameters<NonNullable<ReturnType<typeof ADVANTAGE_ESTIMATORS.get>>>) =>
  ADVANTAGE_ESTIMATORS.get(name)!(...args);

/** One reward a row, at its last token, the rows of lengths 1, 2, 3, … */
const outcome = (rewards: readonly number[], index = rewards.map(() => 'a')) => ({
  tokenLevelRewards: rewards.map((r, i) => Float64Array.from({ length: i + 1 }, (_, t) => (t === i ? r : 0))),
  mask: rewards.map((_, i) => new Float64Array(i + 1).fill(1)),
  index,
});
const perRow = (name: string, batch: ReturnType<typeof outcome>, options = {}) =>
  run(name, batch, options).advantages.map((row) => row[0]!);

describe('GRPO', () => {
  it('is (r − mean) / (unbiased std + 1e-6) on every sampled token of a ragged row', () => {
    const { advantages } = run('grpo', { ...outcome([1, 0, 0, 1]), mask: [[1], [1, 0], [0, 1, 1], [1, 1, 1, 1]] });
    const a = 0.5 / (Math.sqrt(1 / 3) + 1e-6);
    expect(advantages.map((row) => [...row])).toEqual([[a], [-a, -0], [-0, -a, -a], [a, a, a, a]]);
  });
  it('without the std is Dr.GRPO', () => {
    expect(perRow('grpo', outcome([1, 0, 0, 1]), { normAdvByStdInGrpo: false })).toEqual([0.5, -0.5, -0.5, 0.5]);
  });
  it('keeps the reward of a group of one, and gives a group of equal rewards nothing', () => {
    expect(perRow('grpo', outcome([0.7, 0.3], ['a', 'b']))).toEqual([0.7 / (1 + 1e-6), 0.3 / (1 + 1e-6)]);
    for (const a of perRow('grpo', outcome(new Array(7).fill(0.1)))) expect(Math.abs(a)).toBeLessThan(1e-9);
  });
  it('compares only inside a group', () => {
    const alone = perRow('grpo', outcome([1, 0, 2]));
    const beside = perRow('grpo', outcome([1, 0, 2, 9, 7], ['a', 'a', 'a', 'b', 'b']));
    expect(beside.slice(0, 3)).toEqual(alone);
  });
});

describe('estimators of groups', () => {
  it('rloo is r minus the mean of the others', () => {
    expect(perRow('rloo', outcome([3, 1, 2]))).toEqual([1.5, -1.5, 0]);
    expect(perRow('rloo', outcome([3], ['a']))).toEqual([3]);
    expect(perRow('rloo_vectorized', outcome([3], ['a']))).toEqual([0]);
  });
  it('opo weights the baseline by length', () => {
    expect(perRow('opo', outcome([1, 0, 0]))[0]).toBeCloseTo(1 - 1 / 6);
  });
  it('grpo_passk gives the best its lead and refuses a group of one', () => {
    expect(perRow('grpo_passk', outcome([1, 3, 2]), { normAdvByStdInGrpo: false })).toEqual([0, 1, 0]);
    expect(() => run('grpo_passk', outcome([1]))).toThrow('group a has one trajectory');
  });
  it('gpg scales by the share of rows with a reward', () => {
    expect(perRow('gpg', outcome([1, 0, 0, 0]))).toEqual([3, -1, -1, -1]);
  });
  it('gdpo refuses a reward key that is not there', () => {
    expect(() => run('gdpo', { ...outcome([1, 0]), scores: { acc: [1, 0] } }, { gdpoRewardKeys: ['fmt'] })).toThrow(
      'reward key fmt is not among the scores (acc)',
    );
  });
  it('sum to 0 over a group: grpo, rloo, dr.grpo', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 2, maxLength: 8 }), (rewards) => {
        for (const name of ['grpo', 'rloo', 'rloo_vectorized'])
          expect(perRow(name, outcome(rewards)).reduce((a, b) => a + b)).toBeCloseTo(0, 8);
      }),
    );
  });
});

describe('estimators with returns', () => {
  it('gae with gamma = lam = 1 returns rewards to go, observation tokens skipped', () => {
    const { returns } = run('gae', {
      tokenLevelRewards: [[0, 0, 0, 1]],
      mask: [[1, 0, 1, 1]],
      values: [[0.5, 9, 0.2, 0.1]],
    });
    expect(returns[0]![0]).toBeCloseTo(1);
    expect(returns[0]![2]).toBeCloseTo(1);
  });
  it('whitens: mean 0 and variance 1 over the mask', () => {
    const { advantages } = run('reinforce_plus_plus', outcome([1, 0, 3, 2]), { gamma: 0.9 });
    const flat = advantages.flatMap((row) => [...row]);
    const mean = flat.reduce((a, b) => a + b) / flat.length;
    expect(mean).toBeCloseTo(0);
    expect(flat.reduce((a, x) => a + (x - mean) ** 2, 0) / (flat.length - 1)).toBeCloseTo(1);
  });
  it('remax subtracts the baseline of the row', () => {
    const { advantages } = run('remax', { ...outcome([1, 0]), rewardBaselines: [0.25, 0.5] });
    expect(advantages.map((row) => [...row])).toEqual([[0.75], [-0.5, -0.5]]);
  });
  it('the optimal token baseline with equal weights is the mean return; a tail that only one row has gets none', () => {
    // π = ½ and Σπ² = ½ make every w ½, so W grows alike in both rows.
    const rows = outcome([4, 2]);
    const half = rows.mask.map((row) => row.map(() => Math.log(0.5)));
    const batch = { ...rows, oldLogProbs: half, sumPiSquared: rows.mask.map((row) => row.map(() => 0.5)) };
    for (const name of ['optimal_token_baseline', 'tir_optimal_token_baseline']) {
      const { advantages } = run(name, batch, { handleZeroTail: true });
      expect(advantages[0]![0]).toBeCloseTo(1, 6);
      expect([...advantages[1]!]).toEqual([expect.closeTo(-1, 6), expect.closeTo(2, 6)]);
      expect(run(name, batch, { handleZeroTail: false }).advantages[1]![1]).toBeCloseTo(0, 6);
    }
  });
});

describe('refusals', () => {
  it('name the estimator and the argument', () => {
    const { index: _, ...noIndex } = outcome([1, 2]);
    expect(() => run('grpo', noIndex)).toThrow('grpo: index is needed');
    expect(() => run('gae', outcome([1]))).toThrow('gae: values is needed');
    expect(() => run('grpo', { ...outcome([1, 2]), mask: [[1], [1]] })).toThrow(
      'grpo: row 1 of tokenLevelRewards has 2 tokens, the mask 1',
    );
  });
});
