/** @file `algorithm.*`: advantages, the KL penalty in the reward, rollout correction. */
import { z } from 'zod';
import { acts, actsFor, amount, count, flag, optionalText, section, text } from './field.ts';

/** verl's registry of advantage estimators. */
export const ADVANTAGE_ESTIMATORS = [
  'gae',
  'grpo',
  'grpo_vectorized',
  'grpo_passk',
  'rloo',
  'rloo_vectorized',
  'reinforce_plus_plus',
  'reinforce_plus_plus_baseline',
  'remax',
  'opo',
  'gpg',
  'gdpo',
  'optimal_token_baseline',
  'tir_optimal_token_baseline',
] as const;

/** KL estimates per token; with + the gradient is that of k2. */
export const KL_PENALTIES = [
  'kl',
  'kl+',
  'k1',
  'k1+',
  'abs',
  'abs+',
  'mse',
  'mse+',
  'k2',
  'k2+',
  'low_var_kl',
  'low_var_kl+',
  'k3',
  'k3+',
  'full',
] as const;

/** A key that names a KL estimate. */
export const klEstimate = (fallback: (typeof KL_PENALTIES)[number], description: string) =>
  actsFor(z.enum(KL_PENALTIES).default(fallback), description, {
    supported: KL_PENALTIES.filter((name) => name !== 'full'),
    reason: 'it needs the whole distribution of each token',
  });

/** A bound, or verl's `lower_upper`. */
const bound = () => z.union([z.number().positive(), z.string()], { error: 'expected a number > 0 or lower_upper' });

export const rolloutCorrectionSchema = section('the policy that sampled against the one that is trained', {
  rollout_is: acts(
    z.enum(['token', 'sequence']).nullable().default(null),
    'weight the loss by π / π_rollout of each token or of the sequence; null: no weights',
  ),
  rollout_is_threshold: acts(bound().default(2), 'weights are truncated here; as lower_upper: 0 outside'),
  rollout_is_batch_normalize: acts(flag(false), 'divide the weights by their mean'),
  rollout_rs: acts(
    optionalText(),
    'reject by these divergences, comma separated: {token,seq_sum,seq_mean}_{k1,k2,k3} or seq_max_{k2,k3}; null: none',
  ),
  rollout_rs_threshold: acts(bound().nullable().default(null), 'bounds of rollout_rs: one for all, or one each'),
  bypass_mode: acts(flag(false), 'correct inside the loss, for the current policy (loss_mode bypass_mode)'),
  loss_type: acts(
    z.enum(['ppo_clip', 'reinforce']).default('ppo_clip'),
    'loss of bypass_mode: the clipped one, or the plain policy gradient with the weights',
  ),
});

export const algorithmSchema = section('advantages and the KL penalty in the reward', {
  adv_estimator: acts(
    z.enum(ADVANTAGE_ESTIMATORS).default('grpo'),
    'how rewards become advantages; gae trains a critic (see critic)',
  ),
  norm_adv_by_std_in_grpo: acts(flag(true), "divide by the group's standard deviation; false: Dr.GRPO"),
  gamma: acts(z.number().min(0).max(1).default(1), 'discount of gae and reinforce_plus_plus'),
  lam: acts(z.number().min(0).max(1).default(1), "gae: weight of the later tokens' errors"),
  gdpo_reward_keys: acts(
    z.array(z.string()).min(1).nullable().default(null),
    'gdpo: rewards that are normalised apart (total, acc, format, other or an extra of the reward); null: the total',
  ),
  gdpo_reward_weights: acts(
    z.array(z.number()).min(1).nullable().default(null),
    'gdpo: their weights, in that order; null: 1 each',
  ),
  use_kl_in_reward: acts(flag(false), 'subtract the KL from the frozen reference policy from the reward'),
  kl_penalty: klEstimate('kl', 'KL estimate of the penalty'),
  kl_ctrl: section('coefficient of the KL penalty', {
    type: acts(z.enum(['fixed', 'adaptive']).default('fixed'), 'constant, or following target_kl'),
    kl_coef: acts(amount(0.001), 'coefficient, or its first value'),
    horizon: acts(count(10000), 'time scale of the adaptive controller in trajectories'),
    target_kl: acts(amount(0.1), 'KL that the adaptive controller aims at'),
  }),
  rollout_correction: rolloutCorrectionSchema,
  filter_groups: section(
    'leave out questions whose trajectories all have the same metric, and roll out others (DAPO)',
    {
      enable: acts(flag(false), 'do so'),
      metric: acts(
        text('acc'),
        'what is compared: acc, format, other, score (the total reward; also seq_reward, seq_final_reward), or an extra of the reward',
      ),
      max_num_gen_batches: acts(
        count(10),
        'batches of data.gen_batch_size rolled out in a step at most; then it goes on with what was found',
      ),
    },
  ),
});
