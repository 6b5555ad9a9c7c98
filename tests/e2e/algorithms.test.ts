/** @file Other algorithms than GRPO from the command line: they train, and end at other weights. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openActor } from '@frame-thinker/checkpoint';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root, runCommand } from './processes.ts';

const runs = mkdtempSync(join(tmpdir(), 'ft-algorithms-'));
afterAll(() => rmSync(runs, { recursive: true, force: true }));

interface Finished {
  code: number | null;
  metrics: Record<string, number>;
  weights: Map<string, Float32Array>;
  extra: Record<string, unknown>;
}
async function train(name: string, ...settings: string[]): Promise<Finished> {
  const dir = join(runs, name);
  const { code, lines } = await runCommand([
    ...['train', '--config', join(root, 'configs/debug/tiny.yaml'), `trainer.default_local_dir=${dir}`],
    ...['trainer.total_training_steps=1', 'trainer.val_before_train=false', 'data.val_max_samples=1'],
    ...['actor_rollout_ref.rollout.n=3', ...settings],
  ]);
  expect(lines.join('\n')).toContain('training is complete: 1 steps');
  const actor = join(dir, 'global_step_1/actor');
  const { model, moments } = openActor(actor);
  const weights = new Map(model.names.map((tensor) => [tensor, model.read(tensor)]));
  model.close();
  moments.close();
  const state = readdirSync(actor).find((file) => file.startsWith('extra_state'))!;
  return {
    code,
    metrics: JSON.parse(readFileSync(join(dir, 'metrics.jsonl'), 'utf8').trim().split('\n').at(-1)!),
    weights,
    extra: JSON.parse(readFileSync(join(actor, state), 'utf8')),
  };
}
const differs = (a: Finished, b: Finished): boolean =>
  [...a.weights].some(([name, values]) => values.some((x, i) => x !== b.weights.get(name)![i]));

describe('algorithms from the command line', () => {
  let grpo: Finished;
  beforeAll(async () => {
    grpo = await train('grpo');
    expect(grpo.metrics['actor/grad_norm']).toBeGreaterThan(0);
  });

  it('remax with cispo, and the KL from a frozen reference in loss and reward', async () => {
    const found = await train(
      'remax',
      'algorithm.adv_estimator=remax',
      'actor_rollout_ref.actor.policy_loss.loss_mode=cispo',
      'algorithm.use_kl_in_reward=true',
      'algorithm.kl_ctrl={type: adaptive, kl_coef: 0.1, target_kl: 0.01, horizon: 100}',
      'actor_rollout_ref.actor.use_kl_loss=true',
      'actor_rollout_ref.actor.kl_loss_coef=0.1',
    );
    expect(found.metrics['timing_s/gen_max']).toBeGreaterThan(0);
    expect(found.metrics['timing_s/ref']).toBeGreaterThan(0);
    // The reference is the policy still: the same weights in another process.
    expect(Math.abs(found.metrics['actor/kl_loss']!)).toBeLessThan(1e-6);
    expect(Math.abs(found.metrics['actor/reward_kl_penalty']!)).toBeLessThan(1e-4);
    expect(found.metrics['actor/reward_kl_penalty_coeff']).toBe(0.1);
    expect(found.extra.klCoefficient).toBeLessThan(0.1);
    expect(differs(found, grpo)).toBe(true);
  });

  it('reinforce_plus_plus with gspo and rollout correction', async () => {
    const found = await train(
      'corrected',
      'algorithm.adv_estimator=reinforce_plus_plus',
      'algorithm.rollout_correction.rollout_is=token',
      'actor_rollout_ref.rollout.recompute_log_prob=true',
      'actor_rollout_ref.actor.policy_loss.loss_mode=gspo',
    );
    expect(found.metrics['rollout_corr/rollout_is_mean']).toBeCloseTo(1, 4);
    expect(differs(found, grpo)).toBe(true);
  });
});
