import { valueLoss } from '@frame-thinker/algorithms';
import { trainSchema } from '@frame-thinker/config';
import type { Trajectory } from '@frame-thinker/core';
import type { CriticWorker } from '@frame-thinker/worker-pool';
import { expect, it } from 'vitest';
import { updateCritic, withValues } from './critic-update.ts';
import { estimateAdvantages } from './group-advantages.ts';
import type { ScoredGroup } from './scored-groups.ts';
import { countedGroups } from './training-batch.ts';

const PROMPT = 2;
function member(uid: string, n: number, total: number) {
  const length = 6 + n;
  const trajectory: Trajectory = {
    ...{ uid, sample: n, step: 1, promptLength: PROMPT, frames: [], turns: [], end: 'answer', toolCalls: 0 },
    ids: Int32Array.from({ length }, (_, i) => 10 * n + i),
    mask: Uint8Array.from({ length }, (_, i) => (i >= PROMPT && i !== PROMPT + 1 ? 1 : 0)),
    logProbs: new Float32Array(length),
  };
  return { trajectory, text: '', reward: { total, acc: total, format: 1, other: 0, rules: [], extras: {} } };
}
const groups: ScoredGroup[] = ['a', 'b'].map((uid, position) => ({
  group: { sample: { uid, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} }, position, n: 2, step: 1 },
  members: [member(uid, 0, position), member(uid, 1, 1)],
}));

/** Values hang on the ids and move by 0.7 with each update. */
function recorder() {
  const cotangents = new Map<Int32Array, Float32Array>();
  let updates = 0;
  const calls: string[] = [];
  const values = ({ trajectories }: { trajectories: readonly { ids: Int32Array; mask: Uint8Array }[] }) =>
    trajectories.map(({ ids, mask }) => Float32Array.from(mask, (m, i) => m * (Math.sin(ids[i]!) + 0.7 * updates)));
  const worker = {
    values: async (batch) => {
      calls.push('values');
      return values(batch);
    },
    backwardValues: async (batch, dValues) => {
      calls.push('backward');
      batch.trajectories.forEach(({ ids }, i) => {
        cotangents.set(ids, dValues[i]!);
      });
      return values(batch);
    },
    applyUpdate: async () => {
      calls.push('update');
      updates++;
      return { gradNorm: 2, applied: true };
    },
  } as Partial<CriticWorker> as CriticWorker;
  return { worker, cotangents, calls };
}

async function update(settings: object) {
  const { critic } = trainSchema.parse({ critic: { ppo_mini_batch_size: 2, cliprange_value: 0.3, ...settings } });
  const { worker, cotangents, calls } = recorder();
  const valued = await withValues(countedGroups(groups, { compared: false }), worker);
  const training = estimateAdvantages(valued, { estimator: 'gae', options: { gamma: 0.9, lam: 0.8 } });
  calls.length = 0;
  const result = await updateCritic(training, {
    ...{ worker, critic, lossNorm: 'mini', lossScaleFactor: 9, step: 1, seed: 1 },
    learningRate: (k) => 0.1 / (k + 1),
    nonFinite: { inARow: 0, limit: 5 },
  });
  return { rows: training.flatMap(({ rows }) => rows), cotangents, calls, result };
}
const part = (values: ArrayLike<number>) => Array.from(values).slice(PROMPT);

/** What the registry's loss gives when the values have moved by `moved`. */
function expected({ rows }: Awaited<ReturnType<typeof update>>, moved: number) {
  const mask = rows.map((row) => part(row.mask));
  return valueLoss({
    predictions: rows.map((row) => part(row.values!).map((v) => v + moved)),
    values: rows.map((row) => part(row.values!)),
    returns: rows.map((row) => part(row.returns)),
    ...{ mask, clipRange: 0.3, lossAggMode: 'token-mean' },
  });
}

it('gives the worker the gradient of the value loss, whole and in micro-batches', async () => {
  for (const micro of [null, 1, 4]) {
    const found = await update({ ppo_micro_batch_size_per_gpu: micro });
    const { loss, gradPredictions } = expected(found, 0);
    found.rows.forEach(({ trajectory, mask }, i) => {
      const given = found.cotangents.get(trajectory.ids)!;
      expect(Array.from(given.subarray(0, PROMPT))).toEqual([0, 0]);
      part(given).forEach((d, t) => {
        expect(d).toBeCloseTo(mask[PROMPT + t] ? gradPredictions[i]![t]! : 0, 6);
      });
    });
    expect(found.result.metrics['critic/vf_loss']).toBeCloseTo(loss, 6);
    expect(found.result.metrics).toMatchObject({ 'critic/vf_clipfrac': 0, 'critic/grad_norm': 2, 'critic/lr': 0.1 });
    expect(found.calls.filter((call) => call === 'values')).toEqual([]);
  }
});

it('computes the values again after an optimizer step, and clips what moved too far', async () => {
  const found = await update({ ppo_epochs: 2, ppo_micro_batch_size_per_gpu: 4 });
  expect(found.calls).toEqual(['backward', 'update', 'values', 'backward', 'update']);
  const moved = expected(found, 0.7);
  expect(moved.clipFraction).toBeGreaterThan(0);
  found.rows.forEach(({ trajectory, mask }, i) => {
    part(found.cotangents.get(trajectory.ids)!).forEach((d, t) => {
      expect(d).toBeCloseTo(mask[PROMPT + t] ? moved.gradPredictions[i]![t]! : 0, 6);
    });
  });
  expect(found.result.metrics['critic/vf_clipfrac']).toBeCloseTo(moved.clipFraction / 2, 6);
  expect(found.result).toMatchObject({ optimizerSteps: 2, skippedUpdates: 0, skippedInARow: 0 });
  expect(found.result.metrics['critic/lr']).toBe(0.05);
});
