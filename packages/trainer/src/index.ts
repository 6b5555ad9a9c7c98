export { type BasePolicyOptions, trainBasePolicy } from './base-policy.ts';
export { runTraining, type TrainOptions } from './train.ts';
export { SYNTH_ROOT, synthDataset } from './training-data.ts';
