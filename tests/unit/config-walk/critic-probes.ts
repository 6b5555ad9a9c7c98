/** @file Probes of `critic.*`, of what warms it up, and of the filter and penalty of DAPO. */
import { join } from 'node:path';
import { MODEL, RUN, root, trainingRun } from './observers.ts';
import { item, probesOf } from './probe.ts';

const GAE = [...RUN, 'algorithm.adv_estimator=gae'];
/** In the second pass the values are no longer those of the advantages. */
const TWICE = [...GAE, 'critic.ppo_epochs=2'];
const SIX = [...GAE, 'data.train_batch_size=6', 'trainer.total_training_steps=1', 'critic.ppo_mini_batch_size=2'];
const COSINE = [...GAE, 'critic.optim.warmup_style=cosine'];
/** Two trajectories a question, of which some questions' are both right. */
const PAIRS = [...RUN, 'actor_rollout_ref.rollout.n=2'];
const FILTER = [...PAIRS, 'algorithm.filter_groups.enable=true'];
const OVERLONG = [...RUN, 'reward_model.reward_manager=dapo', 'reward_model.overlong_buffer={enable: true, len: 63}'];

export const criticProbes = [
  ...probesOf('critic', [
    ['enable', [null, true], trainingRun, ...RUN],
    [
      'model.path',
      [MODEL, join(root, 'tests/fixtures/qwen/model')],
      trainingRun,
      ...GAE,
      item('actor_rollout_ref.model.path', MODEL),
    ],
    ['ppo_mini_batch_size', [2, 1], trainingRun, ...GAE],
    ['ppo_micro_batch_size_per_gpu', [null, 1], trainingRun, ...GAE],
    ['use_dynamic_bsz', [false, true], trainingRun, ...GAE],
    [
      'ppo_max_token_len_per_gpu',
      [192, 400],
      trainingRun,
      ...GAE,
      'critic.use_dynamic_bsz=true',
      'actor_rollout_ref.rollout.n=12',
    ],
    ['ppo_epochs', [1, 2], trainingRun, ...GAE],
    ['shuffle', [false, true], trainingRun, ...SIX],
    ['grad_clip', [1, 2], trainingRun, ...GAE],
    ['cliprange_value', [0.5, 0.01], trainingRun, ...TWICE],
    ['loss_agg_mode', ['token-mean', 'seq-mean-token-mean'], trainingRun, ...GAE],
  ]),
  ...probesOf('critic.optim', [
    ['lr', [1e-6, 1e-5], trainingRun, ...GAE],
    [
      'betas',
      [
        [0.9, 0.999],
        [0.9, 0.99],
      ],
      trainingRun,
      ...GAE,
    ],
    ['eps', [1e-8, 1e-6], trainingRun, ...GAE],
    ['weight_decay', [0.01, 0], trainingRun, ...GAE],
    ['lr_warmup_steps', [-1, 2], trainingRun, ...GAE],
    ['lr_warmup_steps_ratio', [0, 1], trainingRun, ...GAE],
    ['warmup_style', ['constant', 'cosine'], trainingRun, ...GAE],
    ['min_lr_ratio', [0, 0.9], trainingRun, ...COSINE],
    ['num_cycles', [0.5, 2.3], trainingRun, ...COSINE],
  ]),
  ...probesOf('trainer', [['critic_warmup', [0, 2], trainingRun, ...GAE]]),
  ...probesOf('algorithm', [['lam', [1, 0.5], trainingRun, ...GAE]]),
  ...probesOf('algorithm.filter_groups', [
    ['enable', [false, true], trainingRun, ...PAIRS],
    ['metric', ['acc', 'score'], trainingRun, ...FILTER],
    ['max_num_gen_batches', [1, 3], trainingRun, ...FILTER],
  ]),
  ...probesOf('data', [['gen_batch_size', [2, 3], trainingRun, ...FILTER]]),
  ...probesOf('actor_rollout_ref.actor', [['calculate_sum_pi_squared', [false, true], trainingRun, ...RUN]]),
  ...probesOf('reward_model', [
    ['reward_manager', ['dapo', 'naive'], trainingRun, ...OVERLONG],
    ['overlong_buffer.enable', [true, false], trainingRun, ...OVERLONG],
    ['overlong_buffer.len', [63, 60], trainingRun, ...OVERLONG],
    ['overlong_buffer.penalty_factor', [1, 2], trainingRun, ...OVERLONG],
    ['overlong_buffer.log', [false, true], trainingRun, ...OVERLONG],
  ]),
];
