/** @file Every loss and estimator through the trainer: what reaches the worker is the registry's gradient. */
import {
  ADVANTAGE_ESTIMATORS,
  aggLoss,
  klController,
  klPenalty,
  POLICY_LOSSES,
  type PolicyLossOptions,
} from '@frame-thinker/algorithms';
import { type TrainConfig, trainSchema } from '@frame-thinker/config';
import { createRng, type Reward, type Trajectory } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { describe, expect, it } from 'vitest';
import { updateActor } from './actor-update.ts';
import { advantageOptions, comparesGroup, estimateAdvantages } from './group-advantages.ts';
import { scoringBatches } from './micro-batches.ts';
import { configuredLoss, withRolloutCorrection } from './policy-loss.ts';
import { withKlPenalty, withRefLogProbs } from './reference-policy.ts';
import type { ScoredGroup } from './scored-groups.ts';
import { type CountedGroup, countedGroups, mapGroups } from './training-batch.ts';

const PROMPT = 2;
const rng = createRng(3, 'init');
function member(uid: string, n: number, total: number) {
  const length = 7 + rng.below(4);
  const mask = Uint8Array.from({ length }, (_, i) => (i >= PROMPT && i !== PROMPT + 1 ? 1 : 0));
  const trajectory: Trajectory = {
    ...{ uid, sample: n, step: 1, mask, promptLength: PROMPT, frames: [], turns: [], end: 'answer', toolCalls: 0 },
    ids: Int32Array.from({ length }, () => rng.below(50)),
    logProbs: Float32Array.from(mask, (m) => (m ? -0.1 - 2 * rng.uniform() : 0)),
  };
  const reward: Reward = { total, acc: total, format: n % 2, other: 0, rules: [], extras: {} };
  return { trajectory, text: '', reward };
}
const scored: ScoredGroup[] = [
  ['a', [1, 0, 0.5]],
  ['b', [0.2, 0.9, 0]],
].map(([uid, totals], position) => {
  const name = uid as string;
  const sample = { uid: name, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} };
  const members = (totals as number[]).map((total, n) => member(name, n, total));
  return { group: { sample, position, n: members.length, step: 1 }, members };
});
/** Old log-probs other than the rollout's, so that no ratio is 1. */
const shifted = (by: number) =>
  mapGroups(countedGroups(scored, { compared: true }), (row, i) => ({
    ...row,
    oldLogProbs: row.trajectory.logProbs.map((x, t) => (row.mask[t] ? x + by * Math.sin(7 * t + i) : 0)),
  }));
const parse = (algorithm: object, actor: object): TrainConfig =>
  trainSchema.parse({ algorithm, actor_rollout_ref: { actor: { ppo_mini_batch_size: 2, ...actor } } });

/** Records cotangents and learns nothing; its log-probs are the rollout's. */
function recorder() {
  const cotangents = new Map<Int32Array, Float32Array>();
  const logProbs = ({ trajectories }: { trajectories: readonly unknown[] }) =>
    trajectories.map((t) => (t as Trajectory).logProbs);
  const worker = {
    forward: async (batch) => ({ logProbs: logProbs(batch), entropy: [] }),
    backward: async (batch, { dLogProbs }) => {
      batch.trajectories.forEach(({ ids }, i) => {
        cotangents.set(ids, dLogProbs[i]!);
      });
      return { logProbs: logProbs(batch), entropy: [] };
    },
    applyUpdate: async () => ({ gradNorm: 1, applied: true }),
  } as Partial<PolicyWorker> as PolicyWorker;
  return { worker, cotangents };
}

async function update(config: TrainConfig, groups: readonly CountedGroup[]) {
  const training = estimateAdvantages(groups, { estimator: 'grpo', options: {} });
  const { worker, cotangents } = recorder();
  // The ratio is between the rollout's log-probs (a second epoch's forward) and the shifted old ones.
  const actor = { ...config.actor_rollout_ref.actor, ppo_epochs: 2 };
  const loss = configuredLoss(config);
  const shared = { worker, actor, loss, temperature: 1, ban: [], learningRate: () => 1e-3, step: 1, seed: 1 };
  const { metrics } = await updateActor(training, { ...shared, nonFinite: { inARow: 0, limit: 5 } });
  return { rows: training.flatMap((g) => g.rows), cotangents, metrics };
}
const part = (values: ArrayLike<number>) => Array.from(values).slice(PROMPT);
type Updated = Awaited<ReturnType<typeof update>>;
function inputs(rows: Updated['rows']) {
  return {
    oldLogProb: rows.map((row) => part(row.oldLogProbs)),
    logProb: rows.map((row) => part(row.trajectory.logProbs)),
    advantages: rows.map((row) => part(row.advantages)),
    mask: rows.map((row) => part(row.mask)),
  };
}
function expectCotangents({ rows, cotangents }: Updated, gradient: readonly ArrayLike<number>[]): void {
  rows.forEach(({ trajectory }, i) => {
    const given = cotangents.get(trajectory.ids)!;
    given.slice(0, PROMPT).forEach((d) => {
      expect(d).toBe(0);
    });
    part(given).forEach((d, t) => {
      expect(d).toBeCloseTo(gradient[i]![t]!, 6);
    });
  });
}

/** Settings far from the defaults, so that one that is not handed on shows. */
const LOSSES: Record<string, { policy_loss?: object; actor?: object; options?: Partial<PolicyLossOptions> }> = {
  vanilla: {
    actor: { clip_ratio_low: 0.05, clip_ratio_high: 0.4 },
    options: { clipRatioLow: 0.05, clipRatioHigh: 0.4 },
  },
  gspo: {},
  sapo: { actor: { tau_pos: 2, tau_neg: 3 }, options: { tauPos: 2, tauNeg: 3 } },
  gpg: {},
  clip_cov: {
    policy_loss: { clip_cov_ratio: 0.2, clip_cov_lb: -1, clip_cov_ub: 2 },
    options: { clipCovRatio: 0.2, clipCovLb: -1, clipCovUb: 2 },
  },
  kl_cov: { policy_loss: { kl_cov_ratio: 0.3, ppo_kl_coef: 0.7 }, options: { klCovRatio: 0.3, ppoKlCoef: 0.7 } },
  geo_mean: {},
  cispo: {},
  bypass_mode: { options: { rolloutCorrection: { lossType: 'ppo_clip' } } },
  dppo_tv: {},
  dppo_kl: {},
  dro: { policy_loss: { dro_beta: 0.4 }, options: { droBeta: 0.4 } },
};

describe('policy losses', () => {
  it('are all listed here', () => {
    expect(Object.keys(LOSSES).sort()).toEqual([...POLICY_LOSSES.keys()].filter((name) => name !== 'reinforce').sort());
  });
  for (const [name, { policy_loss, actor, options }] of Object.entries(LOSSES))
    it(`${name}: the worker gets the registry's gradient, whole and in micro-batches`, async () => {
      // In one micro-batch: losses that look at the whole (clip_cov, kl_cov) are per micro-batch.
      const config = (micro: number) =>
        parse({}, { ...actor, policy_loss: { loss_mode: name, ...policy_loss }, ppo_micro_batch_size_per_gpu: micro });
      const found = await update(config(6), shifted(0.5));
      const input = inputs(found.rows);
      const tokens = input.mask.flat().reduce((a, b) => a + b, 0);
      const { gradLogProb } = POLICY_LOSSES.get(name)!(input, {
        lossAggMode: 'token-mean',
        batchNumTokens: tokens,
        globalBatchSize: 6,
        ...options,
        permutation: (n) => createRng(1, 'permute', 1, 1, 2).shuffled(Array.from({ length: n }, (_, k) => k)),
      });
      expect(gradLogProb.some((row) => row.some((g) => g !== 0))).toBe(true);
      expectCotangents(found, gradLogProb);
      if (name !== 'clip_cov' && name !== 'kl_cov')
        expectCotangents(await update(config(2), shifted(0.5)), gradLogProb);
    });

  it('refuse unusable rollout correction before anything runs', () => {
    const bad = parse({ rollout_correction: { rollout_rs: 'token_k9', rollout_rs_threshold: 2 } }, {});
    expect(() => configuredLoss(bad)).toThrow('algorithm.rollout_correction: rollout_rs token_k9: must be one of');
  });
});

describe('rollout correction', () => {
  it('weights the loss and takes rejected tokens out of it', async () => {
    const config = parse(
      { rollout_correction: { rollout_is: 'token', rollout_rs: 'token_k1', rollout_rs_threshold: 1.3 } },
      { policy_loss: { loss_mode: 'gpg' } },
    );
    const before = shifted(0.5);
    const { groups, metrics } = withRolloutCorrection(before, { algorithm: config.algorithm, mode: 'gpg' });
    const kept = groups.flatMap(({ rows }) => rows.flatMap(({ mask }) => Array.from(mask)));
    const all = before.flatMap(({ rows }) => rows.flatMap(({ mask }) => Array.from(mask)));
    const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
    expect(sum(kept)).toBeGreaterThan(0);
    expect(sum(kept)).toBeLessThan(sum(all));
    expect(metrics['rollout_corr/rollout_is_mean']).toBeGreaterThan(0);
    const found = await update(config, groups);
    const gradient = found.rows.map(({ mask, advantages, isWeights }) =>
      part(Array.from(mask, (m, t) => (m ? (-advantages[t]! * isWeights![t]!) / sum(kept) : 0))),
    );
    expectCotangents(found, gradient);
  });

  it('does nothing when not asked, and in bypass mode', () => {
    const before = shifted(0.5);
    const { algorithm } = parse({ rollout_correction: { rollout_is: 'token' } }, {});
    for (const [settings, mode] of [
      [parse({}, {}).algorithm, 'vanilla'],
      [algorithm, 'bypass_mode'],
    ] as const)
      expect(withRolloutCorrection(before, { algorithm: settings, mode })).toEqual({ groups: before, metrics: {} });
  });
});

/** Log-probs of the reference: the rollout's, moved. */
const reference = {
  forward: async ({ trajectories }: { trajectories: readonly unknown[] }) => ({
    logProbs: trajectories.map((t) => (t as Trajectory).logProbs.map((x, i) => x - 0.3 * Math.cos(i))),
    entropy: [],
  }),
} as Partial<PolicyWorker> as PolicyWorker;

describe('the frozen reference policy', () => {
  const { ref } = parse({}, {}).actor_rollout_ref;
  const withReference = () =>
    withRefLogProbs(shifted(0), reference, { temperature: 1, ban: [], batches: scoringBatches('ref', ref) });

  it('adds kl_loss_coef times the gradient of the KL to that of the loss', async () => {
    const settings = { use_kl_loss: true, kl_loss_coef: 0.5, kl_loss_type: 'low_var_kl' };
    const found = await update(parse({}, settings), await withReference());
    const input = inputs(found.rows);
    const options = { lossAggMode: 'token-mean' as const };
    const plain = POLICY_LOSSES.get('vanilla')!(input, options).gradLogProb;
    const { kl, gradLogProb } = klPenalty(
      input.logProb,
      found.rows.map((row) => part(row.refLogProbs!)),
      'low_var_kl',
    );
    const { loss, gradLossMat } = aggLoss(kl, input.mask, options);
    expectCotangents(
      found,
      plain.map((row, i) => row.map((g, t) => g + 0.5 * gradLossMat[i]![t]! * gradLogProb[i]![t]!)),
    );
    expect(found.metrics['actor/kl_loss']).toBeCloseTo(loss, 6);
    expect(found.metrics['actor/kl_coef']).toBe(0.5);
  });

  it('takes the KL out of the reward, and the adaptive coefficient moves', async () => {
    const controller = klController({ type: 'adaptive', klCoef: 0.2, targetKl: 10, horizon: 100 });
    const before = await withReference();
    const { groups, metrics } = withKlPenalty(before, { kind: 'kl', controller });
    expect(metrics['actor/reward_kl_penalty_coeff']).toBe(0.2);
    expect(controller.value).toBeCloseTo(0.2 * (1 - (0.2 * 6) / 100), 10);
    groups.forEach(({ rows }, g) => {
      rows.forEach(({ rewards, mask, oldLogProbs, refLogProbs }, r) => {
        rewards.forEach((x, t) => {
          const kl = mask[PROMPT + t] ? oldLogProbs[PROMPT + t]! - refLogProbs![PROMPT + t]! : 0;
          expect(x).toBeCloseTo(before[g]!.rows[r]!.rewards[t]! - 0.2 * kl, 6);
        });
      });
    });
  });
});

const ESTIMATORS = [...ADVANTAGE_ESTIMATORS.keys()];
describe('advantage estimators', () => {
  for (const name of ESTIMATORS)
    it(`${name}: rows get the registry's advantages`, () => {
      const { algorithm } = parse(
        { adv_estimator: name, gamma: 0.9, gdpo_reward_keys: ['acc', 'format'], gdpo_reward_weights: [1, 0.5] },
        {},
      );
      const options = advantageOptions(algorithm);
      const baselines = new Map([
        ['a', 0.4],
        ['b', 0.1],
      ]);
      const counted = mapGroups(countedGroups(scored, { compared: comparesGroup(name) }), (row, i) => ({
        ...row,
        values: Float32Array.from(row.mask, (m, t) => m * Math.sin(t + i)),
        sumPiSquared: Float32Array.from(row.mask, (m, t) => m * (0.2 + 0.1 * Math.cos(t + i))),
      }));
      const rows = estimateAdvantages(counted, { estimator: name, options, baselines }).flatMap((g) => g.rows);
      const expected = ADVANTAGE_ESTIMATORS.get(name)!(
        {
          tokenLevelRewards: rows.map(({ rewards }) => rewards),
          mask: rows.map(({ mask }) => part(mask)),
          values: rows.map(({ values }) => part(values!)),
          oldLogProbs: rows.map(({ oldLogProbs }) => part(oldLogProbs)),
          sumPiSquared: rows.map(({ sumPiSquared }) => part(sumPiSquared!)),
          index: ['a', 'a', 'a', 'b', 'b', 'b'],
          rewardBaselines: [0.4, 0.4, 0.4, 0.1, 0.1, 0.1],
          scores: { acc: [1, 0, 0.5, 0.2, 0.9, 0], format: [0, 1, 0, 0, 1, 0] },
        },
        options,
      );
      rows.forEach(({ advantages, mask }, i) => {
        part(advantages).forEach((a, t) => {
          expect(a).toBeCloseTo(mask[PROMPT + t] ? expected.advantages[i]![t]! : 0, 5);
        });
      });
      expect(rows.some(({ advantages }) => advantages.some((a) => a !== 0))).toBe(true);
    });

  it('a trajectory alone counts where it is judged by itself; a question without baseline is left out', () => {
    const alone: ScoredGroup[] = scored.map((group) => ({
      ...group,
      members: group.members.map((each, i) =>
        i === 0 ? each : { trajectory: each.trajectory, text: '', error: 'decode_error' },
      ),
    }));
    const count = (compared: boolean) => countedGroups(alone, { compared }).map(({ rows }) => rows.length);
    expect(count(comparesGroup('grpo'))).toEqual([0, 0]);
    expect(count(comparesGroup('reinforce_plus_plus'))).toEqual([1, 1]);
    const leftOut = (uid: string) => uid === 'a';
    expect(countedGroups(scored, { compared: false, leftOut }).map(({ rows }) => rows.length)).toEqual([0, 3]);
  });

  it('gdpo names a reward that a row does not have', () => {
    const options = { gdpoRewardKeys: ['tempo'] };
    const counted = countedGroups(scored, { compared: true });
    expect(() => estimateAdvantages(counted, { estimator: 'gdpo', options })).toThrow(
      /gdpo_reward_keys: .* has no tempo/,
    );
  });
});
