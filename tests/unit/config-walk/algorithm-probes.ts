/** @file Probes of `algorithm.*`. */
import { RUN, trainingRun } from './observers.ts';
import { probesOf } from './probe.ts';

const PENALTY = [...RUN, 'algorithm.use_kl_in_reward=true'];
const ADAPTIVE = [
  ...PENALTY,
  'algorithm.kl_penalty=abs',
  'algorithm.kl_ctrl.type=adaptive',
  'algorithm.kl_ctrl.horizon=20',
];
const GDPO = [...RUN, 'algorithm.adv_estimator=gdpo'];
/** Old log-probs that are not the rollout's. */
const RECOMPUTED = [...RUN, 'actor_rollout_ref.rollout.recompute_log_prob=true'];
const correction = 'algorithm.rollout_correction';

export const algorithmProbes = [
  ...probesOf('algorithm', [
    ['adv_estimator', ['grpo', 'rloo'], trainingRun, ...RUN],
    ['norm_adv_by_std_in_grpo', [true, false], trainingRun, ...RUN],
    ['gamma', [1, 0.5], trainingRun, ...RUN, 'algorithm.adv_estimator=reinforce_plus_plus'],
    ['gdpo_reward_keys', [['acc'], ['acc', 'other']], trainingRun, ...GDPO],
    ['gdpo_reward_weights', [null, [1, 5]], trainingRun, ...GDPO, 'algorithm.gdpo_reward_keys=[acc,other]'],
    ['use_kl_in_reward', [false, true], trainingRun, ...RUN],
    ['kl_penalty', ['kl', 'abs'], trainingRun, ...PENALTY],
  ]),
  ...probesOf('algorithm.kl_ctrl', [
    ['type', ['fixed', 'adaptive'], trainingRun, ...PENALTY, 'algorithm.kl_ctrl.horizon=20'],
    ['kl_coef', [0.001, 0.1], trainingRun, ...PENALTY],
    ['horizon', [20, 40], trainingRun, ...ADAPTIVE],
    ['target_kl', [0.1, 50], trainingRun, ...ADAPTIVE],
  ]),
  ...probesOf(correction, [
    ['rollout_is', ['token', 'sequence'], trainingRun, ...RECOMPUTED],
    ['rollout_is_threshold', [2, 1.05], trainingRun, ...RECOMPUTED, `${correction}.rollout_is=token`],
    ['rollout_is_batch_normalize', [false, true], trainingRun, ...RECOMPUTED, `${correction}.rollout_is=token`],
    ['rollout_rs', [null, 'seq_mean_k3'], trainingRun, ...RECOMPUTED, `${correction}.rollout_rs_threshold=0.03`],
    ['rollout_rs_threshold', [0.03, 100], trainingRun, ...RECOMPUTED, `${correction}.rollout_rs=seq_mean_k3`],
    ['bypass_mode', [false, true], trainingRun, ...RUN, 'actor_rollout_ref.actor.ppo_epochs=2'],
    [
      'loss_type',
      ['ppo_clip', 'reinforce'],
      trainingRun,
      ...RUN,
      `${correction}.bypass_mode=true`,
      'actor_rollout_ref.actor.ppo_epochs=2',
    ],
  ]),
];
