/** @file The built-in environment with seeded random delays, for tests: DELAY_SEED chooses them, nothing else depends on it. */
import { createSpotlightEnvironment, type EnvironmentOptions, type FrameSource } from '@frame-thinker/agent-env';
import { createRng, type Environment } from '@frame-thinker/core';

const rng = createRng(Number(process.env.DELAY_SEED ?? 0), 'permute');
/** Up to 30 ms, and one in five times none. */
const delay = () => {
  const ms = Math.max(0, rng.uniform() * 37.5 - 7.5);
  return ms === 0 ? Promise.resolve() : new Promise<void>((resolve) => setTimeout(resolve, ms));
};

/** Frames of `source`, late. */
export const lateFrames = (source: FrameSource): FrameSource => ({
  probe: async (video) => {
    await delay();
    return source.probe(video);
  },
  get: async (video, indices, size) => {
    await delay();
    const frames = await source.get(video, indices, size);
    await delay();
    return frames;
  },
});

export default function lateEnvironment(options: EnvironmentOptions): Environment {
  const inner = createSpotlightEnvironment({ ...options, frames: lateFrames(options.frames) });
  return {
    reset: async (sample, random) => {
      await delay();
      return inner.reset(sample, random);
    },
    step: async (text, random) => {
      await delay();
      const observation = await inner.step(text, random);
      await delay();
      return observation;
    },
    close: () => inner.close(),
  };
}
