/** @file The whole training configuration. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are interpolations of configuration files.
import { z } from 'zod';
import { algorithmSchema } from './algorithm.ts';
import { criticSchema } from './critic.ts';
import { dataSchema } from './data.ts';
import { flag, section, withoutEffect } from './field.ts';
import { actorSchema, modelSchema, refSchema } from './model.ts';
import { ccvSchema, engineSchema, envSchema, raySchema, rewardSchema } from './own.ts';
import { rolloutSchema } from './rollout.ts';
import { customRewardFunctionSchema, rewardModelSchema, trainerSchema } from './trainer.ts';

export const trainSchema = z.strictObject({
  data: dataSchema,
  algorithm: algorithmSchema,
  actor_rollout_ref: section('the policy', {
    model: modelSchema,
    actor: actorSchema,
    ref: refSchema,
    rollout: rolloutSchema,
    hybrid_engine: withoutEffect(flag(true), 'actor and rollout share a process', 'they always do'),
  }),
  critic: criticSchema,
  reward_model: rewardModelSchema,
  custom_reward_function: customRewardFunctionSchema,
  env: envSchema,
  ccv: ccvSchema,
  reward: rewardSchema,
  engine: engineSchema,
  ray: raySchema,
  trainer: trainerSchema,
  debug: withoutEffect(flag(false), 'debugger of the original', 'use node --inspect'),
  vs_debug: withoutEffect(flag(false), 'debugger of the original', 'use node --inspect'),
});

/** A resolved configuration: every key has its value. */
export type TrainConfig = z.infer<typeof trainSchema>;

/**
 * Keys that follow another key when they are absent or null.
 * The right side is interpolated as in a configuration file.
 */
export const FOLLOWS: Readonly<Record<string, string>> = {
  'data.seed': '${trainer.seed}',
  'data.gen_batch_size': '${data.train_batch_size}',
  'actor_rollout_ref.actor.ppo_mini_batch_size': '${data.train_batch_size}',
  'actor_rollout_ref.actor.clip_ratio_low': '${actor_rollout_ref.actor.clip_ratio}',
  'actor_rollout_ref.actor.clip_ratio_high': '${actor_rollout_ref.actor.clip_ratio}',
  'actor_rollout_ref.rollout.log_prob_use_dynamic_bsz': '${actor_rollout_ref.actor.use_dynamic_bsz}',
  'actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu': '${actor_rollout_ref.actor.ppo_max_token_len_per_gpu}',
  'actor_rollout_ref.ref.log_prob_use_dynamic_bsz': '${actor_rollout_ref.actor.use_dynamic_bsz}',
  'actor_rollout_ref.ref.log_prob_max_token_len_per_gpu': '${actor_rollout_ref.actor.ppo_max_token_len_per_gpu}',
  'actor_rollout_ref.rollout.prompt_length': '${data.max_prompt_length}',
  'actor_rollout_ref.rollout.response_length': '${data.max_response_length}',
  'actor_rollout_ref.rollout.agent.single_response_max_tokens': '${data.max_response_length}',
  'critic.model.path': '${actor_rollout_ref.model.path}',
  'critic.ppo_mini_batch_size': '${actor_rollout_ref.actor.ppo_mini_batch_size}',
  'critic.use_dynamic_bsz': '${actor_rollout_ref.actor.use_dynamic_bsz}',
  'critic.ppo_epochs': '${actor_rollout_ref.actor.ppo_epochs}',
  'critic.shuffle': '${actor_rollout_ref.actor.shuffle}',
  'critic.loss_agg_mode': '${actor_rollout_ref.actor.loss_agg_mode}',
  'trainer.default_local_dir': 'runs/${trainer.project_name}/${trainer.experiment_name}',
};
