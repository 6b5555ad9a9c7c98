import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { keysOf } from './keys.ts';
import { loadConfig } from './load.ts';
import { referencePage } from './reference-page.ts';
import { trainSchema } from './schema/train.ts';

it('docs/configuration.md is what the schema says (scripts/generate-configuration-page.ts writes it)', () => {
  expect(readFileSync(join(import.meta.dirname, '../../../docs/configuration.md'), 'utf8')).toBe(referencePage());
});

it('every key that does not act, or not for every value, gives its reason', () => {
  const keys = keysOf(trainSchema);
  const unexplained = keys.filter(
    ({ effect, reason, supported }) =>
      (effect !== 'acts' || supported !== undefined) && (reason === undefined || reason.trim() === ''),
  );
  expect(unexplained.map(({ key }) => key)).toEqual([]);
  expect(keys.filter(({ effect, supported }) => effect === 'refused' && supported === undefined)).toEqual([]);
  const silent = keys.filter(({ effect }) => effect === 'without-effect');
  console.log(
    `accepted without effect: ${silent.length} of ${keys.length} keys\n${silent.map(({ key, reason }) => `  ${key}: ${reason}`).join('\n')}`,
  );
});

it('settings of the algorithm that cannot work together are refused by name', () => {
  const complaint = (...overrides: string[]): string => {
    try {
      loadConfig({ overrides });
    } catch (error) {
      return (error as Error).message;
    }
    return '';
  };
  const loss = 'actor_rollout_ref.actor.policy_loss.loss_mode';
  const recompute = 'actor_rollout_ref.rollout.recompute_log_prob=true';
  expect(complaint(`${loss}=dro`)).toContain('policy_loss.dro_beta: dro needs');
  expect(complaint(`${loss}=dro`, 'actor_rollout_ref.actor.policy_loss.dro_beta=0.1')).toBe('');
  expect(complaint('algorithm.adv_estimator=grpo_passk', 'actor_rollout_ref.rollout.n=1')).toContain('rollout.n=2');
  expect(complaint('algorithm.gdpo_reward_weights=[1,2]')).toContain('2 weights for 1');
  expect(complaint('algorithm.kl_ctrl={type: adaptive, target_kl: 0}')).toContain('kl_ctrl.target_kl');
  expect(complaint('algorithm.rollout_correction.rollout_is=token')).toContain('nothing to correct');
  expect(complaint('algorithm.rollout_correction.rollout_is=token', recompute)).toBe('');
  expect(complaint('algorithm.rollout_correction={rollout_rs: token_k1, bypass_mode: true}')).toContain('needs bounds');
  expect(complaint(`${loss}=bypass_mode`, recompute)).toContain('set it to false');
  expect(complaint(`${loss}=gspo`, 'algorithm.rollout_correction.bypass_mode=true')).toContain('loss_mode is gspo');
});
