import { trainSchema } from '@frame-thinker/config';
import { createRng, type Reward, type Sample, type Trajectory } from '@frame-thinker/core';
import type { PolicyWorker } from '@frame-thinker/worker-pool';
import { describe, expect, it } from 'vitest';
import { updateActor } from './actor-update.ts';
import { estimateAdvantages as estimate } from './group-advantages.ts';
import { configuredLoss } from './policy-loss.ts';
import type { ScoredGroup } from './scored-groups.ts';
import { countedGroups } from './training-batch.ts';

const rng = createRng(1, 'init');
const sample = (uid: string): Sample => ({ uid, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} });
const reward = (total: number): Reward => ({ total, acc: total, format: 1, other: 0, rules: [], extras: {} });
function trajectory(uid: string, n: number): Trajectory {
  const length = 6 + rng.below(6);
  const promptLength = 3;
  const mask = Uint8Array.from({ length }, (_, i) => (i >= promptLength && i !== promptLength + 2 ? 1 : 0));
  return {
    uid,
    sample: n,
    step: 1,
    ids: Int32Array.from({ length }, () => rng.below(50)),
    mask,
    logProbs: Float32Array.from(mask, (m) => (m ? -0.1 - 2 * rng.uniform() : 0)),
    promptLength,
    frames: [],
    turns: [],
    end: 'answer',
    toolCalls: 0,
  };
}
const group = (uid: string, totals: (number | undefined)[]): ScoredGroup => ({
  group: { sample: sample(uid), position: 0, n: totals.length, step: 1 },
  members: totals.map((total, i) => ({
    trajectory: trajectory(uid, i),
    text: '',
    ...(total === undefined ? { error: 'decode_error' } : { reward: reward(total) }),
  })),
});
const config = trainSchema.parse({ actor_rollout_ref: { actor: { ppo_mini_batch_size: 8 } } });
const { actor } = config.actor_rollout_ref;
const estimateAdvantages = (groups: readonly ScoredGroup[]) =>
  estimate(countedGroups(groups, { compared: true }), { estimator: 'grpo', options: {} });

/** A worker that sums the cotangents it is given, by trajectory, and returns the rollout's log-probs; `finite`: by update, true past its end. */
function fakeWorker(finite: readonly boolean[] = []) {
  let updates = 0;
  const cotangents = new Map<Int32Array, Float32Array>();
  let calls = 0;
  const worker = {
    forward: async (batch) => ({ logProbs: batch.trajectories.map((t) => (t as Trajectory).logProbs), entropy: [] }),
    backward: async (batch, { dLogProbs }) => {
      calls++;
      batch.trajectories.forEach((t, i) => {
        const sum = cotangents.get(t.ids) ?? new Float32Array(t.ids.length);
        dLogProbs[i]!.forEach((d, k) => {
          sum[k] = sum[k]! + d;
        });
        cotangents.set(t.ids, sum);
      });
      return {
        logProbs: batch.trajectories.map((t) => (t as Trajectory).logProbs),
        entropy: batch.trajectories.map((t) => new Float32Array(t.ids.length)),
      };
    },
    applyUpdate: async () => {
      const applied = finite[updates++] ?? true;
      return { gradNorm: applied ? 1 : Number.NaN, applied };
    },
  } as Partial<PolicyWorker> as PolicyWorker;
  return { worker, cotangents, calls: () => calls };
}
const run = async (
  groups: ScoredGroup[],
  micro: number | null,
  worker: PolicyWorker,
  more: Partial<typeof actor> = {},
  nonFinite = { inARow: 0, limit: 5 },
  options: Partial<Parameters<typeof updateActor>[1]> = {},
) =>
  updateActor(estimateAdvantages(groups), {
    worker,
    actor: { ...actor, ppo_micro_batch_size_per_gpu: micro, ...more },
    loss: configuredLoss(config),
    temperature: 1,
    nonFinite,
    ban: [],
    learningRate: () => 1e-3,
    step: 1,
    seed: 1,
    ...options,
  });

describe('advantages of a step', () => {
  it('leave errors out of mean and std, and groups with fewer than two left', () => {
    const [mixed, alone] = estimateAdvantages([group('a', [1, 0, undefined, 1]), group('b', [1, undefined])]);
    expect(mixed!.rows).toHaveLength(3);
    expect(alone!.rows).toHaveLength(0);
    const std = Math.sqrt((2 * (1 / 3) ** 2 + (2 / 3) ** 2) / 2);
    const [first] = mixed!.rows;
    expect(first!.advantages[3]).toBeCloseTo(1 / 3 / (std + 1e-6), 5);
    first!.advantages.forEach((a, i) => {
      if (!first!.trajectory.mask[i]) expect(a).toBe(0);
    });
  });
});

it('the reward of a trajectory lies on its last token', () => {
  const [counted] = countedGroups([group('a', [0.5, undefined, 2])], { compared: false });
  expect(counted!.rows.map(({ rewards }) => [rewards.at(-1), rewards.filter((r) => r !== 0).length])).toEqual([
    [0.5, 1],
    [2, 1],
  ]);
  for (const { rewards, trajectory: t } of counted!.rows) expect(rewards).toHaveLength(t.ids.length - t.promptLength);
});

describe('the policy update', () => {
  const groups = [group('a', [1, 0, 0.5, 1]), group('b', [0, 0, 1, 0])];

  it('on policy sends −A / tokens to each sampled token, whatever the micro-batches', async () => {
    const rows = estimateAdvantages(groups).flatMap((g) => g.rows);
    const tokens = rows.reduce((n, { trajectory: t }) => n + t.mask.reduce((a, b) => a + b, 0), 0);
    for (const micro of [null, 1, 2, 4, 8]) {
      const { worker, cotangents } = fakeWorker();
      await run(groups, micro, worker);
      for (const { trajectory: t, advantages } of rows)
        t.ids.forEach((_, i) => {
          expect(cotangents.get(t.ids)![i]).toBeCloseTo(t.mask[i] ? -advantages[i]! / tokens : 0, 6);
        });
    }
  });

  it('cut by tokens, changes no gradient (1e-5 relative L2), whatever the limit', async () => {
    const trained = [...groups, group('d', [0.2, 0.9, 0, 1, 0.5])];
    const gradient = async (more: Partial<typeof actor>) => {
      const { worker, cotangents, calls } = fakeWorker();
      await run(trained, null, worker, more);
      const rows = trained.flatMap(({ members }) => members.map(({ trajectory }) => trajectory.ids));
      return {
        values: rows.flatMap((ids) => [...(cotangents.get(ids) ?? new Float32Array(ids.length))]),
        calls: calls(),
      };
    };
    const norm = (values: readonly number[]) => Math.hypot(...values);
    for (const mode of ['token-mean', 'seq-mean-token-sum', 'seq-mean-token-mean'] as const) {
      const by = { loss_agg_mode: mode };
      const whole = await gradient({ ...by, ppo_micro_batch_size_per_gpu: 13 });
      expect(whole.calls).toBe(1);
      expect(norm(whole.values)).toBeGreaterThan(0);
      const calls = new Set<number>();
      for (const tokens of [12, 17, 30, 64, 1000]) {
        const cut = await gradient({ ...by, use_dynamic_bsz: true, ppo_max_token_len_per_gpu: tokens });
        calls.add(cut.calls);
        expect(norm(cut.values.map((x, i) => x - whole.values[i]!))).toBeLessThan(1e-5 * norm(whole.values));
      }
      expect(calls.size).toBeGreaterThan(2);
    }
    await expect(gradient({ use_dynamic_bsz: true, ppo_max_token_len_per_gpu: 5 })).rejects.toThrow(
      /raise .*ppo_max_token_len_per_gpu \(5\)/,
    );
  });

  it('tells the worker how to score, each optimizer step its settings, and the bonus for entropy', async () => {
    const scoring: unknown[] = [];
    const steps: unknown[] = [];
    const dEntropy = new Map<Int32Array, Float32Array>();
    const { worker: silent } = fakeWorker();
    const worker = {
      forward: (batch, options) => {
        scoring.push(options);
        return silent.forward(batch, options);
      },
      backward: (batch, cotangents, options) => {
        scoring.push(options);
        batch.trajectories.forEach(({ ids }, i) => {
          dEntropy.set(ids, cotangents.dEntropy[i]!);
        });
        return silent.backward(batch, cotangents, options);
      },
      applyUpdate: (options) => {
        steps.push(options);
        return silent.applyUpdate(options);
      },
    } as Partial<PolicyWorker> as PolicyWorker;
    const optim = { ...actor.optim, betas: [0.8, 0.95] as [number, number], eps: 1e-6, weight_decay: 0.2 };
    const settings = { ppo_mini_batch_size: 1, grad_clip: 0.5, entropy_coeff: 0.1, optim };
    const { metrics } = await run(groups, null, worker, settings, undefined, {
      ...{ temperature: 0.7, ban: [4, 5] },
      learningRate: (k) => 0.1 / (k + 1),
    });
    // The second group's log-probs are computed before its gradient: the weights have moved since the rollout.
    expect(scoring).toEqual(Array.from({ length: 3 }, () => ({ temperature: 0.7, ban: [4, 5] })));
    const step = { betas: [0.8, 0.95], eps: 1e-6, weightDecay: 0.2, maxNorm: 0.5 };
    expect(steps).toEqual([
      { ...step, lr: 0.1 },
      { ...step, lr: 0.05 },
    ]);
    expect(metrics['actor/lr']).toBe(0.05);
    for (const { members } of groups) {
      const masks = members.map(({ trajectory: t }) => t.mask);
      const tokens = masks.reduce((n, mask) => n + mask.reduce((a, b) => a + b, 0), 0);
      members.forEach(({ trajectory: { ids } }, i) => {
        dEntropy.get(ids)!.forEach((d, k) => {
          expect(d).toBeCloseTo(masks[i]![k] ? -0.1 / tokens : 0, 7);
        });
      });
    }
  });

  it('skips micro-batches without any advantage and counts them', async () => {
    const { worker, calls } = fakeWorker();
    const { metrics } = await run([...groups, group('c', [1, 1, 1, 1])], null, worker);
    expect(calls()).toBe(2);
    expect(metrics['actor/idle_micro_batches']).toBe(1);
  });

  it('counts updates that were skipped because the gradient is not finite, and ends after so many in a row', async () => {
    const six = { ppo_mini_batch_size: 1, ppo_epochs: 3 };
    const [yes, no] = [true, false];
    const update = (finite: boolean[], inARow = 0) =>
      run(groups, null, fakeWorker(finite).worker, six, { inARow, limit: 3 });
    const counts = { optimizerSteps: 6, skippedUpdates: 4, skippedInARow: 1 };
    expect(await update([no, no, yes, no, yes, no])).toMatchObject(counts);
    expect(await update([no, no, yes, no, no, yes])).toMatchObject({ ...counts, skippedInARow: 0 });
    expect(await update([yes, no, no, no, yes, yes])).toMatchObject({
      ...counts,
      optimizerSteps: 4,
      skippedUpdates: 3,
      skippedInARow: 3,
    });
    expect(await update([no], 2)).toMatchObject({ optimizerSteps: 1, skippedUpdates: 1, skippedInARow: 3 });
    expect(await update([yes, no, no], 2)).toMatchObject({ optimizerSteps: 6, skippedUpdates: 2, skippedInARow: 0 });
  });

  it('makes one optimizer step a mini-batch and epoch', async () => {
    const { worker } = fakeWorker();
    expect((await run(groups, null, worker, { ppo_mini_batch_size: 1, ppo_epochs: 3 })).optimizerSteps).toBe(6);
  });

  it('reports no difference when the training forward equals the rollout', async () => {
    const { worker } = fakeWorker();
    expect((await run(groups, null, worker)).metrics['training/rollout_probs_diff_max']).toBe(0);
  });
});
