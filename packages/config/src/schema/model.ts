/** @file `actor_rollout_ref.{model,actor,ref}.*`: the policy, its updates, its reference. */
import { z } from 'zod';
import { klEstimate } from './algorithm.ts';
import {
  acts,
  amount,
  count,
  ENGINE_REASON,
  flag,
  openMap,
  optionalCount,
  optionalText,
  refused,
  scoringBatchKeys,
  section,
  text,
  withoutEffect,
} from './field.ts';

export const SHARDING = 'every worker keeps all weights and moments';

export const fsdpConfig = () =>
  section('sharding of the original', {
    param_offload: withoutEffect(flag(false), 'keep idle weights in host memory', SHARDING),
    optimizer_offload: withoutEffect(flag(false), 'keep idle moments in host memory', SHARDING),
    offload_policy: withoutEffect(flag(false), 'offload by policy', SHARDING),
    reshard_after_forward: withoutEffect(flag(true), 'free gathered weights after the forward', SHARDING),
    fsdp_size: withoutEffect(z.int().default(-1), 'GPUs in a sharding group', SHARDING),
    forward_prefetch: withoutEffect(flag(false), 'gather the next layer early', SHARDING),
    model_dtype: withoutEffect(text('fp32'), 'type of the weights in memory', 'weights are float32 in training'),
    wrap_policy: withoutEffect(openMap(), 'which layers are sharded together', SHARDING),
  });

export const modelSchema = section('the policy', {
  path: acts(text('examples/agent/base'), 'folder of the model in Hugging Face form (config, weights, tokenizer)'),
  use_remove_padding: withoutEffect(flag(true), 'pack sequences', 'sequences are never padded into the loss'),
  enable_gradient_checkpointing: withoutEffect(flag(true), 'recompute activations in the backward', ENGINE_REASON),
  enable_activation_offload: withoutEffect(flag(false), 'keep activations in host memory', ENGINE_REASON),
  use_liger: withoutEffect(flag(false), 'fused kernels', ENGINE_REASON),
  use_fused_kernels: withoutEffect(flag(false), 'fused kernels', ENGINE_REASON),
  use_shm: withoutEffect(flag(false), 'copy the model into shared memory', ENGINE_REASON),
  trust_remote_code: withoutEffect(
    flag(false),
    "run the model folder's Python",
    'no code of a model folder is ever run',
  ),
  external_lib: refused(optionalText(), 'Python module to import', {
    supported: [null],
    reason: 'Python modules cannot be loaded',
  }),
  override_config: refused(openMap(), "values that replace config.json's", {
    supported: [],
    reason: 'edit config.json of the model folder',
  }),
  lora_rank: refused(z.int().min(0).default(0), 'rank of LoRA adapters; 0: train all weights', {
    supported: [0],
    reason: 'LoRA has no training code yet',
  }),
  lora_alpha: withoutEffect(amount(16), 'scale of LoRA adapters', 'LoRA is not used'),
  target_modules: withoutEffect(text('all-linear'), 'layers that get LoRA adapters', 'LoRA is not used'),
});

/** AdamW and its schedule. */
export const optimSchema = (lr: number) =>
  section('AdamW', {
    lr: acts(amount(lr), 'learning rate after the warm-up'),
    betas: acts(
      z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.999]),
      'moment decay rates',
    ),
    eps: acts(z.number().positive().default(1e-8), 'added to the root of the second moment'),
    weight_decay: acts(amount(0.01), 'decoupled weight decay'),
    lr_warmup_steps: acts(z.int().min(-1).default(-1), 'steps of linear warm-up; -1: by lr_warmup_steps_ratio'),
    lr_warmup_steps_ratio: acts(z.number().min(0).max(1).default(0), 'share of all steps that warm up'),
    warmup_style: acts(z.enum(['constant', 'cosine']).default('constant'), 'learning rate after the warm-up'),
    min_lr_ratio: acts(z.number().min(0).max(1).default(0), 'lowest learning rate of cosine, as a share of lr'),
    num_cycles: acts(z.number().positive().default(0.5), 'cosine waves over the training'),
    total_training_steps: withoutEffect(z.int().default(-1), 'steps of the schedule', 'the trainer fills it in'),
  });

/** verl's registry of policy losses. */
export const LOSS_MODES = [
  'vanilla',
  'gspo',
  'sapo',
  'gpg',
  'clip_cov',
  'kl_cov',
  'geo_mean',
  'cispo',
  'bypass_mode',
  'dppo_tv',
  'dppo_kl',
  'dro',
] as const;

export const AGG_MODES = [
  'token-mean',
  'seq-mean-token-sum',
  'seq-mean-token-mean',
  'seq-mean-token-sum-norm',
] as const;

export const microBatch = (what: string) =>
  withoutEffect(optionalCount(), `${what}, over all workers`, 'use the key that ends in _per_gpu');

export const actorSchema = section('updates of the policy', {
  ppo_mini_batch_size: acts(
    count(32),
    'questions (x rollout.n trajectories) in an optimizer step; default: train_batch_size',
  ),
  ppo_micro_batch_size_per_gpu: acts(
    optionalCount(),
    'trajectories in one forward and backward of a worker; null: one question (rollout.n)',
  ),
  ppo_micro_batch_size: microBatch('trajectories in one forward and backward'),
  ppo_epochs: acts(count(1), 'passes over the batch in a training step'),
  shuffle: acts(flag(false), 'shuffle the batch into mini-batches in each pass'),
  optim: optimSchema(1e-6),
  grad_clip: acts(z.number().positive().default(1), 'largest global norm of the gradient'),
  clip_ratio: acts(amount(0.2), 'clip range of the ratio'),
  clip_ratio_low: acts(amount(0.2), 'lower clip range; default: clip_ratio'),
  clip_ratio_high: acts(amount(0.2), 'upper clip range; default: clip_ratio'),
  clip_ratio_c: acts(z.number().gt(1).default(3), 'dual clip: largest ratio where the advantage is negative'),
  policy_loss: section('the policy loss', {
    loss_mode: acts(z.enum(LOSS_MODES).default('vanilla'), 'which loss; vanilla: dual clip'),
    clip_cov_ratio: acts(z.number().positive().default(0.0002), 'clip_cov: share of tokens that lose their gradient'),
    clip_cov_lb: acts(z.number().default(1), 'clip_cov: lower bound of the covariance of those'),
    clip_cov_ub: acts(z.number().default(5), 'clip_cov: upper bound of the covariance of those'),
    kl_cov_ratio: acts(z.number().positive().default(0.0002), 'kl_cov: share of tokens with a KL penalty'),
    ppo_kl_coef: acts(amount(0.1), 'kl_cov: weight of the KL penalty'),
    dro_beta: acts(z.number().positive().nullable().default(null), 'dro: weight of the squared log ratio'),
  }),
  tau_pos: acts(z.number().positive().default(1), 'sapo: temperature where the advantage is positive'),
  tau_neg: acts(z.number().positive().default(1.05), 'sapo: temperature where it is negative'),
  loss_agg_mode: acts(z.enum(AGG_MODES).default('token-mean'), 'how token losses become one number'),
  loss_scale_factor: acts(
    z.number().positive().nullable().default(null),
    'divisor of seq-mean-token-sum-norm; null: data.max_response_length',
  ),
  loss_norm: acts(
    z.enum(['mini', 'micro']).default('mini'),
    "mean over the whole mini-batch, or the reference's mean of micro-batch means",
  ),
  entropy_coeff: acts(amount(0), 'weight of the entropy bonus'),
  calculate_sum_pi_squared: acts(
    flag(false),
    'compute the sum of squared probabilities of each token, for variance_proxy/*; the optimal token baselines always do',
  ),
  sum_pi_squared_checkpointing: withoutEffect(flag(false), 'recompute it in the backward', ENGINE_REASON),
  use_kl_loss: acts(flag(false), 'add the KL from the frozen reference policy (model.path) to the loss'),
  kl_loss_coef: acts(amount(0.001), 'weight of the KL loss'),
  kl_loss_type: klEstimate('low_var_kl', 'KL estimate of the KL loss'),
  strategy: withoutEffect(z.enum(['fsdp', 'fsdp2', 'megatron']).default('fsdp'), "the original's trainer", SHARDING),
  use_dynamic_bsz: acts(
    flag(false),
    'micro-batches of about equal work and ppo_max_token_len_per_gpu tokens, over ppo_micro_batch_size_per_gpu',
  ),
  ppo_max_token_len_per_gpu: acts(count(16384), 'tokens in a micro-batch of use_dynamic_bsz'),
  ulysses_sequence_parallel_size: refused(count(1), 'workers that share one sequence', {
    supported: [1],
    reason: 'a sequence is never split over workers',
  }),
  use_torch_compile: withoutEffect(flag(true), 'compile the model', ENGINE_REASON),
  entropy_from_logits_with_chunking: withoutEffect(flag(false), 'entropy in pieces', ENGINE_REASON),
  entropy_checkpointing: withoutEffect(flag(false), 'recompute the entropy in the backward', ENGINE_REASON),
  data_loader_seed: withoutEffect(z.int().nullable().default(null), 'seed of the mini-batches', 'trainer.seed is used'),
  checkpoint: withoutEffect(openMap(), 'parts of a checkpoint', 'weights, moments and state are always saved'),
  fsdp_config: fsdpConfig(),
});

export const refSchema = section('the frozen reference policy', {
  ...scoringBatchKeys('log-probs of the reference'),
  log_prob_micro_batch_size: microBatch('trajectories in one forward of the reference'),
  ulysses_sequence_parallel_size: withoutEffect(
    count(1),
    'workers that share one sequence',
    'a sequence is never split over workers',
  ),
  strategy: withoutEffect(z.enum(['fsdp', 'fsdp2', 'megatron']).default('fsdp'), "the original's trainer", SHARDING),
  use_torch_compile: withoutEffect(flag(true), 'compile the model', ENGINE_REASON),
  fsdp_config: fsdpConfig(),
});
