/** @file `trainer.*`, `critic.*`, `reward_model.*`, `custom_reward_function.*`: the run and the rewards. */
import { z } from 'zod';
import {
  acts,
  amount,
  count,
  flag,
  frequency,
  openMap,
  optionalCount,
  optionalText,
  refused,
  section,
  text,
  withoutEffect,
} from './field.ts';

const LOGGERS = [
  'console',
  'file',
  'tensorboard',
  'wandb',
  'swanlab',
  'mlflow',
  'vemlp_wandb',
  'clearml',
  'trackio',
  'rl_insight',
] as const;
const LOGGER = `expected one logger or a list of them, of ${LOGGERS.join(', ')}`;

export const trainerSchema = section('the run', {
  project_name: acts(text('frame_thinker'), 'first part of the default run folder'),
  experiment_name: acts(text('default'), 'second part of the default run folder'),
  default_local_dir: acts(text('runs'), 'run folder; default: runs/<project_name>/<experiment_name>'),
  total_epochs: acts(count(1), 'passes over the training rows'),
  total_training_steps: acts(optionalCount(), 'end after so many steps; null: by total_epochs'),
  seed: acts(z.int().min(0).max(0xffffffff).default(1), 'seed of sampling'),
  logger: acts(
    z
      .union([z.array(z.enum(LOGGERS, { error: LOGGER })), z.enum(LOGGERS, { error: LOGGER })], { error: LOGGER })
      .transform((value) => (typeof value === 'string' ? [value] : value))
      .prefault(['console']),
    'where metrics go besides metrics.jsonl; one that is not available is a warning',
  ),
  save_freq: acts(frequency(-1), 'steps between checkpoints; -1: only the last step'),
  test_freq: acts(frequency(-1), 'steps between validations; -1: only the last step'),
  val_before_train: acts(flag(true), 'validate before the first step'),
  val_only: acts(flag(false), 'validate and end'),
  resume_mode: acts(
    z.enum(['auto', 'disable', 'resume_path']).default('auto'),
    'go on from the newest checkpoint of the run folder, start anew, or go on from resume_from_path',
  ),
  resume_from_path: acts(optionalText(), 'checkpoint folder global_step_N of resume_mode: resume_path'),
  max_actor_ckpt_to_keep: acts(optionalCount(), 'checkpoints that are kept; null: all'),
  max_non_finite_updates: acts(
    count(5),
    'updates in a row skipped for a gradient that is not finite, after which the run ends; their batch is dumped',
  ),
  rollout_data_dir: acts(optionalText(), "folder for verl's rollout dumps; null: only the run folder's trajectories/"),
  validation_data_dir: acts(optionalText(), "folder for verl's validation dumps; null: none"),
  log_val_generations: withoutEffect(
    z.int().min(0).default(0),
    'validation episodes sent to the loggers',
    'all of them are in trajectories/val',
  ),
  nnodes: acts(
    count(1),
    'machines; nnodes x n_gpus_per_node is the number of workers of the policy, and of the critic and the reference policy each',
  ),
  n_gpus_per_node: acts(count(1), 'workers of a machine; more than it has cores are lowered to them, and said'),
  pool: acts(
    z.enum(['local', 'ray']).default('local'),
    'where workers run: processes of this machine, or the nodes of a Ray cluster (ray.*)',
  ),
  balance_batch: acts(
    flag(true),
    'deal the questions of a mini-batch to the workers in parts of about equal work; no gradient depends on it',
  ),
  critic_warmup: acts(z.int().min(0).default(0), 'first step that updates the policy; before it, only the critic'),
  max_critic_ckpt_to_keep: withoutEffect(
    optionalCount(),
    'critic checkpoints that are kept',
    'the critic is a part of the checkpoint: see max_actor_ckpt_to_keep',
  ),
  tensorboard_dir: withoutEffect(optionalText(), 'folder for TensorBoard', 'metrics go to metrics.jsonl'),
  rl_logging_board_dir: withoutEffect(optionalText(), 'folder for RLLoggingBoard', 'episodes go to trajectories/'),
  default_hdfs_dir: refused(optionalText(), 'remote folder', {
    supported: [null],
    reason: 'only local folders are written',
  }),
  del_local_ckpt_after_load: refused(flag(false), 'delete a checkpoint once it is loaded', {
    supported: [false],
    reason: 'checkpoints are only removed by max_actor_ckpt_to_keep',
  }),
  device: withoutEffect(text('cuda'), 'device of the original', 'engine.provider decides'),
  ray_wait_register_center_timeout: withoutEffect(
    amount(300),
    'seconds to wait for workers',
    'the pool has its own watchdog',
  ),
});

export const rewardModelSchema = section('a reward by another model', {
  enable: refused(flag(false), 'score by a reward model', {
    supported: [false],
    reason: 'rewards are functions: see reward.default and custom_reward_function',
  }),
  reward_manager: acts(text('naive'), 'dapo: with overlong_buffer; any other: the reward as it is'),
  overlong_buffer: section('penalty of responses near data.max_response_length (DAPO), of reward_manager dapo', {
    enable: acts(flag(false), 'subtract it from the reward'),
    len: acts(z.int().min(0).default(0), 'tokens before the limit in which the penalty grows from 0 to penalty_factor'),
    penalty_factor: acts(amount(1), 'penalty of a response that reaches the limit'),
    log: acts(flag(false), 'metrics reward/overlong_reward/mean and reward/overlong/mean'),
  }),
  launch_reward_fn_async: withoutEffect(flag(false), 'score beside the old log-probs', 'scoring takes no time'),
  reward_kwargs: withoutEffect(openMap(), 'arguments of the manager', 'see custom_reward_function.reward_kwargs'),
  model: withoutEffect(openMap(), 'the reward model', 'no reward model is used'),
});

export const customRewardFunctionSchema = section('a reward of your own, for every data source', {
  path: acts(optionalText(), 'module (.ts, .js, .mjs) that exports the function; null: reward.default'),
  name: acts(text('compute_score'), 'name of the export'),
  reward_kwargs: acts(openMap(), 'second argument of the function'),
});
