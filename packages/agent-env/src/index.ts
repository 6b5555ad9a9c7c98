export { normalizeAnswer, verdict } from '@frame-thinker/core';
export { type FrameSource, type VideoFacts, videoFrameSource } from './frame-source.ts';
export { type Grammar, type ParsedAction, parseAction } from './grammar.ts';
export { compactFrames, frameLines, type ObservationTemplate, referenceObservation } from './observations.ts';
export { buildPrompt, formatQuestion, type Prompt, type PromptOptions } from './prompt.ts';
export * as referenceInfer from './reference-infer.ts';
export {
  chooseRegime,
  durationOf,
  firstLook,
  fitSize,
  REFERENCE_REGIMES,
  type Regime,
  type RegimeOptions,
  type Size,
  zoomIndices,
} from './regimes.ts';
export {
  createEnvironmentRegistry,
  type EnvironmentFactory,
  type EnvironmentOptions,
  type EnvironmentRegistry,
} from './registry.ts';
export { factMismatches, rowFacts, rowName } from './sample-facts.ts';
export { createSpotlightEnvironment, type SpotlightOptions } from './spotlight.ts';
