/** @file Probes of `actor_rollout_ref.{model,actor}.*`. */
import { join } from 'node:path';
import { MODEL, RUN, root, trainingRun } from './observers.ts';
import { probesOf } from './probe.ts';

const actor = 'actor_rollout_ref.actor';
/** In the second pass the policy is no longer the one that sampled. */
const TWICE = [...RUN, `${actor}.ppo_epochs=2`];
const loss = (mode: string): string[] => [...TWICE, `${actor}.policy_loss.loss_mode=${mode}`];
const SIX = [...RUN, 'data.train_batch_size=6', 'trainer.total_training_steps=1', `${actor}.ppo_mini_batch_size=2`];
const COSINE = [...RUN, `${actor}.optim.warmup_style=cosine`];
/** Micro-batches of rows whose wanted tokens differ in number. */
const SMALL = [...TWICE, `${actor}.ppo_micro_batch_size_per_gpu=2`];
const COVARIANCE = [...loss('clip_cov'), `${actor}.policy_loss.clip_cov_lb=-9`, `${actor}.policy_loss.clip_cov_ub=9`];

export const actorProbes = [
  ...probesOf('actor_rollout_ref.model', [
    ['path', [MODEL, join(root, 'tests/fixtures/qwen/model')], trainingRun, ...RUN],
  ]),
  ...probesOf(actor, [
    ['ppo_mini_batch_size', [2, 1], trainingRun, ...RUN],
    ['ppo_micro_batch_size_per_gpu', [null, 1], trainingRun, ...RUN],
    ['ppo_epochs', [1, 2], trainingRun, ...RUN],
    ['shuffle', [false, true], trainingRun, ...SIX],
    ['grad_clip', [1, 2], trainingRun, ...RUN],
    ['clip_ratio', [0.2, 0.05], trainingRun, ...TWICE],
    ['clip_ratio_low', [0.2, 0.05], trainingRun, ...TWICE],
    ['clip_ratio_high', [0.2, 0.05], trainingRun, ...TWICE],
    ['clip_ratio_c', [3, 1.1], trainingRun, ...TWICE],
    ['tau_pos', [1, 2], trainingRun, ...loss('sapo')],
    ['tau_neg', [1.05, 2], trainingRun, ...loss('sapo')],
    ['loss_agg_mode', ['token-mean', 'seq-mean-token-mean'], trainingRun, ...RUN],
    ['loss_scale_factor', [null, 7], trainingRun, ...RUN, `${actor}.loss_agg_mode=seq-mean-token-sum-norm`],
    ['loss_norm', ['mini', 'micro'], trainingRun, ...SMALL],
    ['entropy_coeff', [0, 0.1], trainingRun, ...RUN],
    ['use_kl_loss', [false, true], trainingRun, ...RUN],
    ['kl_loss_coef', [0.001, 0.1], trainingRun, ...RUN, `${actor}.use_kl_loss=true`],
    ['kl_loss_type', ['low_var_kl', 'abs'], trainingRun, ...RUN, `${actor}.use_kl_loss=true`],
    ['use_dynamic_bsz', [false, true], trainingRun, ...RUN],
    [
      'ppo_max_token_len_per_gpu',
      [192, 400],
      trainingRun,
      ...RUN,
      `${actor}.use_dynamic_bsz=true`,
      'actor_rollout_ref.rollout.n=12',
    ],
  ]),
  ...probesOf(`${actor}.policy_loss`, [
    ['loss_mode', ['vanilla', 'gspo'], trainingRun, ...TWICE],
    ['clip_cov_ratio', [0.0002, 0.5], trainingRun, ...COVARIANCE],
    ['clip_cov_lb', [-9, 8], trainingRun, ...COVARIANCE, `${actor}.policy_loss.clip_cov_ratio=0.5`],
    ['clip_cov_ub', [9, -8], trainingRun, ...COVARIANCE, `${actor}.policy_loss.clip_cov_ratio=0.5`],
    ['kl_cov_ratio', [0.0002, 0.9], trainingRun, ...loss('kl_cov')],
    ['ppo_kl_coef', [0.1, 0.5], trainingRun, ...loss('kl_cov')],
    ['dro_beta', [0.1, 0.5], trainingRun, ...loss('dro')],
  ]),
  ...probesOf(`${actor}.optim`, [
    ['lr', [1e-6, 1e-5], trainingRun, ...RUN],
    [
      'betas',
      [
        [0.9, 0.999],
        [0.8, 0.9],
      ],
      trainingRun,
      ...RUN,
    ],
    ['eps', [1e-8, 1e-6], trainingRun, ...RUN],
    ['weight_decay', [0.01, 0], trainingRun, ...RUN],
    ['lr_warmup_steps', [-1, 2], trainingRun, ...RUN],
    ['lr_warmup_steps_ratio', [0, 1], trainingRun, ...RUN],
    ['warmup_style', ['constant', 'cosine'], trainingRun, ...RUN],
    ['min_lr_ratio', [0, 0.5], trainingRun, ...COSINE],
    ['num_cycles', [0.5, 1], trainingRun, ...COSINE],
  ]),
];
