/** @file `algorithm.*`: advantages and the KL penalty in the reward. */
import { z } from 'zod';
import { acts, actsFor, amount, count, flag, refused, section, withoutEffect } from './field.ts';

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

/** Those that the training loop runs. */
export const TRAINABLE_ESTIMATORS: readonly (typeof ADVANTAGE_ESTIMATORS)[number][] = ['grpo'];

export const KL_PENALTIES = ['kl', 'k1', 'abs', 'mse', 'k2', 'low_var_kl', 'k3', 'full'] as const;

export const NO_REFERENCE = 'the frozen reference policy has no training code yet';

export const algorithmSchema = section('advantages and the KL penalty in the reward', {
  adv_estimator: actsFor(z.enum(ADVANTAGE_ESTIMATORS).default('grpo'), 'how rewards become advantages', {
    supported: TRAINABLE_ESTIMATORS,
    reason: 'has no training code yet',
  }),
  norm_adv_by_std_in_grpo: acts(flag(true), "divide by the group's standard deviation; false: Dr.GRPO"),
  gamma: refused(z.number().min(0).max(1).default(1), 'discount', {
    supported: [1],
    reason: 'no trained estimator discounts',
  }),
  lam: refused(z.number().min(0).max(1).default(1), "GAE's lambda", {
    supported: [1],
    reason: 'gae needs a critic, which has no training code yet',
  }),
  use_kl_in_reward: refused(flag(false), 'subtract a KL penalty from the reward', {
    supported: [false],
    reason: NO_REFERENCE,
  }),
  kl_penalty: withoutEffect(z.enum(KL_PENALTIES).default('kl'), 'KL estimate of the penalty', NO_REFERENCE),
  kl_ctrl: section('coefficient of the KL penalty', {
    type: withoutEffect(
      z.enum(['fixed', 'adaptive']).default('fixed'),
      'constant, or following target_kl',
      NO_REFERENCE,
    ),
    kl_coef: withoutEffect(amount(0.001), 'coefficient, or its first value', NO_REFERENCE),
    horizon: withoutEffect(count(10000), 'time scale of the adaptive controller in trajectories', NO_REFERENCE),
    target_kl: withoutEffect(amount(0.1), 'KL that the adaptive controller aims at', NO_REFERENCE),
  }),
  filter_groups: section('drop groups whose rewards are all equal and sample more (DAPO)', {
    enable: refused(flag(false), 'do so', { supported: [false], reason: 'has no training code yet' }),
  }),
});
