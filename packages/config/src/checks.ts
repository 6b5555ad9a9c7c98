/** @file What one key alone can't tell: values without an implementation, and keys that contradict each other. */
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { algorithmContradictions } from './algorithm-checks.ts';
import { keysOf } from './keys.ts';
import { type Problem, show } from './problems.ts';
import type { TrainConfig } from './schema/train.ts';
import { getPath } from './tree.ts';

/** Values that are well-formed and not supported. An open map supports only being empty when `supported` is empty. */
export function refusals(schema: z.ZodType, config: unknown): Problem[] {
  return keysOf(schema).flatMap((info): Problem[] => {
    if (!info.supported) return [];
    const path = info.key.split('.');
    const value = getPath(config, path);
    if (isDeepStrictEqual(value, info.default) || info.supported.some((option) => isDeepStrictEqual(option, value)))
      return [];
    const options = info.supported.map((option) => (typeof option === 'string' ? option : show(option)));
    const advice = options.length > 0 ? ` (supported: ${options.join(', ')})` : '';
    return [{ path, message: `${show(value)} is refused: ${info.reason}${advice}` }];
  });
}

const PYTHON = 'a Python file cannot be loaded: write it as a module (.ts, .js or .mjs)';

function divides(problems: Problem[], key: string, part: number, whole: number, name: string): void {
  if (part > whole || whole % part !== 0)
    problems.push({ path: key.split('.'), message: `${part} does not divide ${name} = ${whole}` });
}

/** Contradictions between keys. */
export function contradictions(config: TrainConfig): Problem[] {
  const problems: Problem[] = [];
  const { actor, rollout } = config.actor_rollout_ref;
  const say = (key: string, message: string): void => {
    problems.push({ path: key.split('.'), message });
  };
  const { engine } = config;
  if (engine.name === 'onnx' && engine.backend !== 'auto')
    say('engine.backend', `${engine.backend} is a backend of TensorFlow.js: set engine.name=tfjs too`);
  if (engine.name === 'tfjs' && engine.provider !== 'auto')
    say('engine.provider', `${engine.provider} is a provider of ONNX Runtime: engine.name=tfjs has engine.backend`);
  const actorKey = 'actor_rollout_ref.actor';
  const rolloutKey = 'actor_rollout_ref.rollout';

  divides(
    problems,
    `${actorKey}.ppo_mini_batch_size`,
    actor.ppo_mini_batch_size,
    config.data.train_batch_size,
    'data.train_batch_size',
  );
  if (actor.ppo_micro_batch_size_per_gpu !== null)
    divides(
      problems,
      `${actorKey}.ppo_micro_batch_size_per_gpu`,
      actor.ppo_micro_batch_size_per_gpu,
      actor.ppo_mini_batch_size * rollout.n,
      'ppo_mini_batch_size x rollout.n',
    );
  const longest = config.data.max_prompt_length + config.data.max_response_length;
  const { ref } = config.actor_rollout_ref;
  for (const [key, dynamic, most] of [
    [`${actorKey}.ppo_max_token_len_per_gpu`, actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu],
    [
      `${rolloutKey}.log_prob_max_token_len_per_gpu`,
      rollout.log_prob_use_dynamic_bsz,
      rollout.log_prob_max_token_len_per_gpu,
    ],
    [
      'actor_rollout_ref.ref.log_prob_max_token_len_per_gpu',
      ref.log_prob_use_dynamic_bsz,
      ref.log_prob_max_token_len_per_gpu,
    ],
  ] as const)
    if (dynamic && most < longest)
      say(
        key,
        `${most} is less than a trajectory may have, data.max_prompt_length + data.max_response_length = ${longest}`,
      );
  if (rollout.agent.single_response_max_tokens > config.data.max_response_length)
    say(
      `${rolloutKey}.agent.single_response_max_tokens`,
      `${rollout.agent.single_response_max_tokens} is more than the budget of an episode, data.max_response_length = ${config.data.max_response_length}`,
    );
  if (config.trainer.resume_mode === 'resume_path' && config.trainer.resume_from_path === null)
    say('trainer.resume_mode', 'resume_path needs trainer.resume_from_path=<…/global_step_N>');
  if (rollout.val_kwargs.do_sample && rollout.val_kwargs.temperature === 0)
    say(`${rolloutKey}.val_kwargs.do_sample`, 'sampling needs val_kwargs.temperature > 0');
  if (!rollout.val_kwargs.do_sample && rollout.val_kwargs.n > 1)
    say(
      `${rolloutKey}.val_kwargs.n`,
      `${rollout.val_kwargs.n} greedy trajectories would be equal: set val_kwargs.do_sample=true`,
    );
  if (config.trainer.val_only && config.data.val_files.length === 0)
    say('trainer.val_only', 'there is nothing to validate on: data.val_files is empty');
  for (const [key, path] of [
    ['custom_reward_function.path', config.custom_reward_function.path],
    ...Object.entries(config.env.registry).map(([name, path]) => [`env.registry.${name}`, path]),
    ...[['default', config.reward.default] as const, ...Object.entries(config.reward.by_data_source)].map(
      ([name, rule]) => [
        name === 'default' ? 'reward.default.path' : `reward.by_data_source.${name}.path`,
        typeof rule === 'string' ? null : rule.path,
      ],
    ),
  ] as [string, string | null][])
    if (path?.endsWith('.py')) say(key, PYTHON);
  return [...problems, ...algorithmContradictions(config)];
}
