/** @file `critic.*`: the critic of gae and its updates. */
import { z } from 'zod';
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
  section,
  text,
  withoutEffect,
} from './field.ts';
import { AGG_MODES, fsdpConfig, microBatch, optimSchema, SHARDING } from './model.ts';

const BY_QUESTION = 'values are computed one question at a time';

export const criticSchema = section('the critic: the policy with a value head in place of the LM head', {
  enable: acts(z.boolean().nullable().default(null), 'train a critic; null: where algorithm.adv_estimator is gae'),
  model: section('what the critic starts from', {
    path: acts(
      text('examples/agent/base'),
      "model folder; default: the policy's. A value head that it lacks (score.*) is drawn from trainer.seed",
    ),
    tokenizer_path: withoutEffect(optionalText(), 'tokenizer path', 'the critic reads the ids of the policy'),
    use_remove_padding: withoutEffect(flag(true), 'pack sequences', 'sequences are never padded into the loss'),
    enable_gradient_checkpointing: withoutEffect(flag(true), 'recompute activations in the backward', ENGINE_REASON),
    enable_activation_offload: withoutEffect(flag(false), 'keep activations in host memory', ENGINE_REASON),
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
      reason: 'the critic trains all its weights',
    }),
    fsdp_config: fsdpConfig(),
  }),
  optim: optimSchema(1e-5),
  ppo_mini_batch_size: acts(
    count(32),
    "questions (x rollout.n trajectories) in an optimizer step; default: the actor's",
  ),
  ppo_micro_batch_size_per_gpu: acts(
    optionalCount(),
    'trajectories in one forward and backward of a worker; null: one question (rollout.n)',
  ),
  ppo_micro_batch_size: microBatch('trajectories in one forward and backward'),
  use_dynamic_bsz: acts(
    flag(false),
    "micro-batches of about equal work and ppo_max_token_len_per_gpu tokens; default: the actor's",
  ),
  ppo_max_token_len_per_gpu: acts(count(32768), 'tokens in a micro-batch of use_dynamic_bsz'),
  forward_micro_batch_size: microBatch('trajectories in one forward'),
  forward_micro_batch_size_per_gpu: withoutEffect(optionalCount(), 'trajectories in one forward', BY_QUESTION),
  forward_max_token_len_per_gpu: withoutEffect(count(32768), 'tokens in one forward', BY_QUESTION),
  ppo_epochs: acts(count(1), "passes over the batch in a training step; default: the actor's"),
  shuffle: acts(flag(false), "shuffle the batch into mini-batches in each pass; default: the actor's"),
  grad_clip: acts(z.number().positive().default(1), 'largest global norm of the gradient'),
  cliprange_value: acts(amount(0.5), 'how far a value may move from that before the update'),
  loss_agg_mode: acts(
    z.enum(AGG_MODES).default('token-mean'),
    "how token losses become one number; default: the actor's",
  ),
  strategy: withoutEffect(text('fsdp'), "the original's trainer", SHARDING),
  rollout_n: withoutEffect(optionalCount(), 'trajectories of each question', 'actor_rollout_ref.rollout.n is used'),
  ulysses_sequence_parallel_size: refused(count(1), 'workers that share one sequence', {
    supported: [1],
    reason: 'a sequence is never split over workers',
  }),
  checkpoint: withoutEffect(openMap(), 'parts of a checkpoint', 'weights, moments and state are always saved'),
});
