/**
 * @file An environment of one's own: the built-in one, with a budget of looks. Used for rows whose env_name is `one_look` by
 *
 *     env.registry={one_look: examples/agent/environments/one-look.ts}
 *
 * A new one is made for every episode: reset, then a step a turn of the policy, then close. A step that throws ends the
 * episode as env_error: it is counted and left out of the loss.
 */
import { createSpotlightEnvironment, type EnvironmentOptions } from '@frame-thinker/agent-env';
import type { Environment } from '@frame-thinker/core';

const LOOKS = 1;

export default function oneLook(options: EnvironmentOptions): Environment {
  const inner = createSpotlightEnvironment(options);
  let left = LOOKS;
  return {
    reset: (sample, rng) => {
      left = LOOKS;
      return inner.reset(sample, rng);
    },
    step: async (text, rng) => {
      const observation = await inner.step(text, rng);
      if (observation.done || observation.action?.kind !== 'frames' || left-- > 0) return observation;
      return { message: 'No looks are left. Answer now.', frames: [], done: false, action: observation.action };
    },
    close: () => inner.close(),
  };
}
