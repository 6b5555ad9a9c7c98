/** @file Contradictions between the keys of the algorithm. */
import type { Problem } from './problems.ts';
import type { TrainConfig } from './schema/train.ts';

/** Settings of an estimator, a loss or the KL that cannot work together. */
export function algorithmContradictions(config: TrainConfig): Problem[] {
  const problems: Problem[] = [];
  const { algorithm } = config;
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
