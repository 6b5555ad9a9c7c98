/** @file Contradictions between the keys of the algorithm. */
import type { Problem } from './problems.ts';
import type { TrainConfig } from './schema/train.ts';

/** Settings of an estimator, a loss or the KL that cannot work together. */
export function algorithmContradictions(config: TrainConfig): Problem[] {
  const problems: Problem[] = [];
  const { algorithm, critic, trainer } = config;
  const { actor, rollout } = config.actor_rollout_ref;
  const say = (key: string, message: string): void => {
    problems.push({ path: key.split('.'), message });
  };
  const lossKey = 'actor_rollout_ref.actor.policy_loss';

  if (algorithm.adv_estimator === 'grpo_passk' && rollout.n < 2)
    say('algorithm.adv_estimator', 'grpo_passk compares the best two of a question: set actor_rollout_ref.rollout.n=2');
  const { gdpo_reward_keys: keys, gdpo_reward_weights: weights } = algorithm;
  if (weights !== null && weights.length !== (keys?.length ?? 1))
    say('algorithm.gdpo_reward_weights', `${weights.length} weights for ${keys?.length ?? 1} gdpo_reward_keys`);
  if (algorithm.kl_ctrl.type === 'adaptive' && algorithm.kl_ctrl.target_kl === 0)
    say('algorithm.kl_ctrl.target_kl', 'the adaptive controller needs a target above 0');

  const gae = algorithm.adv_estimator === 'gae';
  if (gae && critic.enable === false) say('critic.enable', 'gae needs the critic: set it to true or null');
  const trainsCritic = critic.enable ?? gae;
  if (!trainsCritic && trainer.critic_warmup > 1)
    say(
      'trainer.critic_warmup',
      `steps before step ${trainer.critic_warmup} would train nothing, there being no critic: set it to 0, or algorithm.adv_estimator=gae`,
    );
  if (trainsCritic) {
    const { ppo_mini_batch_size: mini, ppo_micro_batch_size_per_gpu: micro } = critic;
    if (config.data.train_batch_size % mini !== 0)
      say(
        'critic.ppo_mini_batch_size',
        `${mini} does not divide data.train_batch_size = ${config.data.train_batch_size}`,
      );
    if (micro !== null && (mini * rollout.n) % micro !== 0)
      say(
        'critic.ppo_micro_batch_size_per_gpu',
        `${micro} does not divide ppo_mini_batch_size x rollout.n = ${mini * rollout.n}`,
      );
    const longest = config.data.max_prompt_length + config.data.max_response_length;
    if (critic.use_dynamic_bsz && critic.ppo_max_token_len_per_gpu < longest)
      say(
        'critic.ppo_max_token_len_per_gpu',
        `${critic.ppo_max_token_len_per_gpu} is less than a trajectory may have, data.max_prompt_length + data.max_response_length = ${longest}`,
      );
  }

  const { filter_groups: filter } = algorithm;
  const { gen_batch_size: generated, train_batch_size: trained } = config.data;
  if (!filter.enable && generated !== trained)
    say(
      'data.gen_batch_size',
      `is for algorithm.filter_groups, which is not enabled: leave it out, or set it to data.train_batch_size = ${trained}`,
    );
  if (filter.enable && rollout.n < 2)
    say(
      'algorithm.filter_groups.enable',
      'one trajectory has nothing to be compared with: set actor_rollout_ref.rollout.n=2',
    );
  if (filter.enable && filter.metric === 'seq_final_reward' && algorithm.use_kl_in_reward)
    say('algorithm.filter_groups.metric', 'the KL is taken out of the reward after the filter: set seq_reward');

  const { overlong_buffer: buffer, reward_manager: manager } = config.reward_model;
  if (buffer.enable && manager !== 'dapo')
    say(
      'reward_model.overlong_buffer.enable',
      `is of the manager dapo: set reward_model.reward_manager=dapo (it is ${manager})`,
    );
  if (buffer.enable && (buffer.len < 1 || buffer.len > config.data.max_response_length))
    say(
      'reward_model.overlong_buffer.len',
      `${buffer.len} is not between 1 and data.max_response_length = ${config.data.max_response_length}`,
    );

  const { loss_mode: mode, dro_beta: droBeta } = actor.policy_loss;
  if (mode === 'dro' && droBeta === null) say(`${lossKey}.dro_beta`, 'dro needs a value above 0');

  const correction = algorithm.rollout_correction;
  const bypass = correction.bypass_mode || mode === 'bypass_mode';
  const corrects = correction.rollout_is !== null || correction.rollout_rs !== null;
  if (correction.bypass_mode && mode !== 'vanilla' && mode !== 'bypass_mode')
    say(
      'algorithm.rollout_correction.bypass_mode',
      `its loss is bypass_mode (see loss_type), but ${lossKey}.loss_mode is ${mode}`,
    );
  if (bypass && rollout.recompute_log_prob)
    say(
      'actor_rollout_ref.rollout.recompute_log_prob',
      "bypass_mode takes the rollout's log-probs as old ones: set it to false",
    );
  if (!bypass && corrects && !rollout.recompute_log_prob)
    say(
      'algorithm.rollout_correction',
      "old log-probs are the rollout's own, so there is nothing to correct: set actor_rollout_ref.rollout.recompute_log_prob=true, or rollout_correction.bypass_mode=true",
    );
  if (correction.rollout_rs !== null && correction.rollout_rs_threshold === null)
    say('algorithm.rollout_correction.rollout_rs_threshold', 'rollout_rs needs bounds');
  return problems;
}
