/** @file Micro-batches change no gradient: a real worker's, over every way to cut a mini-batch and to deal it to workers. */
import { join } from 'node:path';
import { groupBalancedPartitions } from '@frame-thinker/algorithms';
import { loadConfig } from '@frame-thinker/config';
import { createRng, type Trajectory } from '@frame-thinker/core';
import { workerEntry } from '@frame-thinker/policy-worker';
import { createLocalPool, type PolicyWorker } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveState, stateOf, type WorkerState } from '../../worker-pool/src/testing/worker-state.ts';
import { updateActor } from './actor-update.ts';
import { estimateAdvantages } from './group-advantages.ts';
import { balancedMicroBatches, balanceMetrics, microBatches } from './micro-batches.ts';
import { configuredLoss } from './policy-loss.ts';
import type { ScoredGroup } from './scored-groups.ts';
import { countedGroups } from './training-batch.ts';

const rng = createRng(5, 'init');
const PROMPT = 4;
function group(uid: string, lengths: readonly number[]): ScoredGroup {
  const members = lengths.map((length, sample) => {
    const mask = Uint8Array.from({ length }, (_, i) => (i >= PROMPT && i % 5 !== 0 ? 1 : 0));
    const trajectory: Trajectory = {
      ...{ uid, sample, step: 1, promptLength: PROMPT, frames: [], turns: [], end: 'answer', toolCalls: 0, mask },
      ids: Int32Array.from({ length }, () => 20 + rng.below(60)),
      logProbs: Float32Array.from(mask, (m) => -m),
    };
    const total = rng.uniform();
    return { trajectory, text: '', reward: { total, acc: total, format: 1, other: 0, rules: [], extras: {} } };
  });
  const sample = { uid, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} };
  return { group: { sample, position: 0, n: lengths.length, step: 1 }, members };
}
const groups = [group('a', [40, 12, 9]), group('b', [8, 10, 30]), group('c', [25, 25, 11]), group('d', [60, 9, 9])];
const training = estimateAdvantages(countedGroups(groups, { compared: true }), { estimator: 'grpo', options: {} });
const byQuestion = { dynamic: false, maxTokens: 1, size: null, maxTokensKey: 'x' };
const uids = (micros: { trajectory: Trajectory }[][]) => micros.map((rows) => rows[0]!.trajectory.uid);

describe('balance over workers', () => {
  it("deals questions in the parts of verl's balancing, and says how even they are", () => {
    const rows = training.flatMap((one) => one.rows);
    const parts = groupBalancedPartitions(
      rows.map(({ trajectory }) => trajectory.ids.length),
      rows.map(({ trajectory }) => trajectory.uid),
      2,
    ).map((part) => [...new Set(part.map((i) => rows[i]!.trajectory.uid))]);
    const [first, second] = parts as [string[], string[]];
    expect(uids(balancedMicroBatches(training, { ...byQuestion, workers: 2 }))).toEqual([
      ...[first[0], second[0], first[1], second[1]],
    ]);
    expect(balanceMetrics(training, 2)).toMatchObject({ 'global_seqlen/mean': 124, 'global_seqlen/minmax_diff': 30 });
    const balanced = balanceMetrics(training, 2);
    expect(balanced['global_seqlen/balanced_max']! - balanced['global_seqlen/balanced_min']!).toBeLessThan(30);
  });

  it('keeps the order of the questions for one worker, and where there are fewer questions than workers', () => {
    for (const workers of [1, 5])
      expect(uids(balancedMicroBatches(training, { ...byQuestion, workers }))).toEqual(['a', 'b', 'c', 'd']);
    expect(balanceMetrics(training, 5)).toEqual({});
    expect(uids(balancedMicroBatches(training, { ...byQuestion, workers: 3 })).sort()).toEqual(['a', 'b', 'c', 'd']);
  });
});

describe('cutting by tokens', () => {
  it('holds about so many tokens in each, and refuses what does not fit in one', () => {
    const dynamic = { ...byQuestion, dynamic: true, maxTokens: 64 };
    const tokens = microBatches(training, dynamic).map((rows) =>
      rows.reduce((sum, { trajectory }) => sum + trajectory.ids.length, 0),
    );
    expect(tokens.length).toBe(Math.ceil(248 / 64));
    expect(tokens.reduce((a, b) => a + b, 0)).toBe(248);
    expect(() => microBatches(training, { ...dynamic, maxTokens: 59 })).toThrow(/60 tokens, .*raise x \(59\)/);
  });
});

describe('the gradient of a real worker', () => {
  let worker: PolicyWorker;
  let start: WorkerState;
  beforeAll(async () => {
    const fixtures = process.env.GOLDEN_DIR ?? join(import.meta.dirname, '../../../tests/fixtures');
    const engine = { name: 'onnx', provider: 'cpu', threads: 1 } as const;
    const init = { path: join(fixtures, 'qwen/model'), dtype: 'float32', seed: 1, engine } as const;
    worker = await createLocalPool({ entry: workerEntry, init });
    start = await stateOf(worker);
  });
  afterAll(() => worker?.close());

  /** First moments after one update from the start: (1 − β₁) · gradient, not clipped. */
  async function gradient(...overrides: string[]): Promise<Map<string, Float32Array>> {
    const config = loadConfig({
      overrides: ['data.max_prompt_length=4', 'data.max_response_length=60', ...overrides],
    }).config;
    await giveState(worker, start);
    await updateActor(training, {
      worker,
      actor: { ...config.actor_rollout_ref.actor, ppo_mini_batch_size: groups.length, grad_clip: 1e9 },
      loss: configuredLoss(config),
      ...{ temperature: 1, ban: worker.capabilities.visionIds, learningRate: () => 1e-3, step: 1, seed: 1 },
      nonFinite: { inARow: 0, limit: 1 },
      ...(config.trainer.balance_batch ? { balanceOver: 2 } : {}),
    });
    const { parameters } = await stateOf(worker);
    return new Map([...parameters].map(([name, { expAvg }]) => [name, Float32Array.from(expAvg)]));
  }

  it('is the same by question, by rows, by tokens and balanced (1e-5 relative L2)', async () => {
    const actor = 'actor_rollout_ref.actor';
    const whole = await gradient('trainer.balance_batch=false');
    const norm = (of: (x: number, name: string, i: number) => number): number => {
      let sum = 0;
      for (const [name, values] of whole)
        values.forEach((x, i) => {
          sum += of(x, name, i) ** 2;
        });
      return Math.sqrt(sum);
    };
    const length = norm((x) => x);
    expect(length).toBeGreaterThan(0);
    for (const cut of [
      ['trainer.balance_batch=true'],
      [`${actor}.ppo_micro_batch_size_per_gpu=4`, 'trainer.balance_batch=true'],
      [`${actor}.use_dynamic_bsz=true`, `${actor}.ppo_max_token_len_per_gpu=64`, 'trainer.balance_batch=false'],
    ]) {
      const other = await gradient(...cut);
      const difference = norm((x, name, i) => x - other.get(name)![i]!);
      expect({ cut, close: difference < 1e-5 * length }).toEqual({ cut, close: true });
    }
  }, 600_000);
});
