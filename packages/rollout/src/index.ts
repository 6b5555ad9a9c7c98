export {
  type AfterTurn,
  type EncodedPrompt,
  Episode,
  type EpisodeOptions,
  emptyTrajectory,
  type TextCodec,
} from './episode.ts';
export type * from './policy-model.ts';
export { fitPrompt, type PromptLimits } from './prompt-length.ts';
export { createQwenPolicyModel, type QwenPolicyModel, type QwenPolicyOptions } from './qwen-policy-model.ts';
export { type FinishedGroup, PromptUnreadableError, type RolloutOptions, rollout } from './rollout.ts';
export { createScratch, sampleToken, type TokenDraw } from './sampler.ts';
