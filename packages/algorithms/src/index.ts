export { ADVANTAGE_ESTIMATORS } from './advantages.ts';
export { aggLoss } from './aggregation.ts';
export { AlgorithmError } from './error.ts';
export { klPenalty } from './kl.ts';
export { POLICY_LOSSES } from './policy-losses.ts';
export type * from './types.ts';
