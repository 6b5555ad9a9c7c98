/** @file What the engines share. */
export { type BoundParameters, bindParameters } from './bound-parameters.ts';
export { createInferenceParameters } from './inference-parameters.ts';
export { checkInputs, emptyTensor, findOutputs, nodeLabel } from './program-checks.ts';
export { createTrainingParameters, TRAINABLE_LIMIT } from './training-parameters.ts';
