export { verdict } from '@frame-thinker/core';
export type { FrameSource, VideoFacts } from './frame-source.ts';
export { type Grammar, type ParsedAction, parseAction } from './grammar.ts';
export { imageSize } from './image-size.ts';
export { referenceObservation } from './observations.ts';
export { buildPrompt, formatQuestion, type Prompt, type PromptOptions, rowMessages } from './prompt.ts';
export * as referenceInfer from './reference-infer.ts';
export { createReferenceInferEnvironment } from './reference-infer-environment.ts';
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
  environmentNames,
  unknownEnvironment,
} from './registry.ts';
export { factMismatches, rowFacts } from './sample-facts.ts';
export { createSpotlightEnvironment, type SpotlightOptions } from './spotlight.ts';
