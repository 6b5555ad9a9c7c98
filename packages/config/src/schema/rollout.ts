/** @file `actor_rollout_ref.rollout.*`: how episodes are sampled. */
import { z } from 'zod';
import {
  acts,
  amount,
  count,
  flag,
  GPU_REASON,
  openMap,
  optionalCount,
  optionalText,
  refused,
  scoringBatchKeys,
  section,
  text,
  withoutEffect,
} from './field.ts';

const topK = () => z.int().min(-1).default(-1);
const topP = () => z.number().gt(0).max(1).default(1);

export const rolloutSchema = section('how episodes are sampled', {
  n: acts(count(8), 'trajectories of each question'),
  temperature: acts(z.number().positive().default(1), 'logits are divided by it, in sampling and in log-probs'),
  top_p: acts(topP(), 'sample from the smallest set of tokens with this probability'),
  top_k: acts(topK(), 'sample from so many most likely tokens; -1: all'),
  do_sample: acts(flag(true), 'sample; false: always the most likely token'),
  slots: acts(count(8), 'rows of the decoding batch; a row does not depend on what the others hold'),
  prompt_length: withoutEffect(count(8192), 'longest prompt', 'data.max_prompt_length is used'),
  response_length: withoutEffect(count(8192), 'token budget of an episode', 'data.max_response_length is used'),
  recompute_log_prob: acts(flag(false), "recompute old log-probs by a forward instead of taking the rollout's"),
  val_kwargs: section('sampling in validation', {
    n: acts(count(1), 'trajectories of each question'),
    do_sample: acts(flag(false), 'sample; false: greedy'),
    temperature: acts(amount(0), 'as rollout.temperature; used with do_sample'),
    top_p: acts(topP(), 'as rollout.top_p; used with do_sample'),
    top_k: acts(topK(), 'as rollout.top_k; used with do_sample'),
  }),
  agent: section('the episode', {
    activate_agent: acts(flag(true), 'several turns with an environment; false: one turn'),
    tool_name_key: acts(text('env_name'), "column that names a row's environment; rows without it get one turn"),
    max_turns: acts(count(5), 'turns of the policy in an episode'),
    single_response_max_tokens: acts(count(8192), 'tokens of one turn; default: data.max_response_length'),
    max_vllm_images: acts(count(128), 'images in an episode, first look included'),
    concurrent_workers: withoutEffect(count(1), 'environments stepped at once', 'the slots decide'),
    show_tqdm: withoutEffect(flag(true), 'show progress within a rollout', 'a step is one line of progress'),
    num_workers: withoutEffect(count(1), 'agent loop processes', 'the agent loop runs in the worker'),
  }),
  name: withoutEffect(
    z.enum(['vllm', 'sglang', 'hf']).default('vllm'),
    'server of the original',
    'rollouts run in this engine',
  ),
  mode: withoutEffect(z.enum(['sync', 'async']).default('sync'), 'server mode of the original', GPU_REASON),
  tensor_model_parallel_size: refused(count(1), 'GPUs that share one copy of the policy', {
    supported: [1],
    reason: 'a worker holds the whole policy',
  }),
  gpu_memory_utilization: withoutEffect(z.number().gt(0).max(1).default(0.5), 'share of GPU memory', GPU_REASON),
  max_num_batched_tokens: withoutEffect(count(8192), 'tokens in a batch of the server', GPU_REASON),
  max_num_seqs: withoutEffect(count(1024), 'sequences in a batch of the server', 'rollout.slots is used'),
  max_model_len: withoutEffect(optionalCount(), 'longest sequence of the server', 'prompt plus response length'),
  enforce_eager: withoutEffect(flag(false), 'no CUDA graphs', GPU_REASON),
  free_cache_engine: withoutEffect(flag(false), 'free the KV cache after a rollout', 'it is always freed'),
  enable_chunked_prefill: withoutEffect(flag(false), 'prefill in pieces', GPU_REASON),
  enable_prefix_caching: withoutEffect(
    flag(true),
    'share prompts',
    'the samples of a question always share its prompt',
  ),
  disable_log_stats: withoutEffect(flag(true), 'no statistics of the server', GPU_REASON),
  load_format: withoutEffect(text('auto'), 'how the server gets weights', GPU_REASON),
  layered_summon: withoutEffect(flag(false), 'hand weights over layer by layer', GPU_REASON),
  dtype: withoutEffect(text('float32'), 'type of weights in the rollout', 'the same float32 weights are used'),
  ignore_eos: refused(flag(false), 'go on after the end token', {
    supported: [false],
    reason: 'a turn ends at its end token',
  }),
  use_fire_sampling: refused(flag(false), 'high temperature for the first token', {
    supported: [false],
    reason: 'log-probs would not be those of the policy',
  }),
  calculate_log_probs: withoutEffect(flag(true), "keep the rollout's log-probs", 'they are always kept'),
  ...scoringBatchKeys('old log-probs'),
  log_prob_micro_batch_size: withoutEffect(
    optionalCount(),
    'trajectories in one forward for old log-probs, over all workers',
    'use the key that ends in _per_gpu',
  ),
  engine_kwargs: withoutEffect(openMap(), 'options of the server', GPU_REASON),
  multi_turn: section('multi-turn rollouts of the original; see rollout.agent', {
    enable: withoutEffect(flag(true), 'several turns', 'rollout.agent.activate_agent decides'),
    tool_config_path: refused(optionalText(), 'tools of the original', {
      supported: [null],
      reason: 'register an environment in env.registry',
    }),
  }),
});
