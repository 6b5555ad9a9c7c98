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
  const gae = 'algorithm.adv_estimator=gae';
  expect(complaint(gae)).toBe('');
  expect(complaint(gae, 'critic.enable=false')).toContain('gae needs the critic');
  expect(complaint('trainer.critic_warmup=2')).toContain('would train nothing');
  expect(complaint(gae, 'trainer.critic_warmup=2')).toBe('');
  expect(complaint(gae, 'critic.ppo_mini_batch_size=5')).toContain('5 does not divide data.train_batch_size = 32');
  expect(complaint(gae, 'critic.ppo_micro_batch_size_per_gpu=7')).toContain('7 does not divide');
  expect(complaint(gae, 'critic.use_dynamic_bsz=true', 'critic.ppo_max_token_len_per_gpu=9')).toContain(
    '9 is less than',
  );
  const filter = 'algorithm.filter_groups.enable=true';
  expect(complaint(filter, 'data.gen_batch_size=64')).toBe('');
  expect(complaint('data.gen_batch_size=64')).toContain('algorithm.filter_groups, which is not enabled');
  expect(complaint(filter, 'actor_rollout_ref.rollout.n=1')).toContain('rollout.n=2');
  const final = 'algorithm.filter_groups.metric=seq_final_reward';
  expect(complaint(filter, final, 'algorithm.use_kl_in_reward=true')).toContain('set seq_reward');
  const buffer = 'reward_model.overlong_buffer={enable: true, len: 9}';
  expect(complaint(buffer)).toContain('set reward_model.reward_manager=dapo');
  expect(complaint(buffer, 'reward_model.reward_manager=dapo')).toBe('');
  expect(complaint(buffer, 'reward_model.reward_manager=dapo', 'reward_model.overlong_buffer.len=0')).toContain(
    'between 1',
  );
  expect(complaint(`${loss}=gspo`, 'algorithm.rollout_correction.bypass_mode=true')).toContain('loss_mode is gspo');
});
