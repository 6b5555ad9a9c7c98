export { ADVANTAGE_ESTIMATORS } from './advantages/index.ts';
export { aggLoss } from './aggregation.ts';
export {
  balancedPartitions,
  greedyPartition,
  groupBalancedPartitions,
  karmarkarKarp,
  microBatches,
  workloadOf,
} from './balancing.ts';
export { entropyLoss, entropyOf } from './entropy.ts';
export { AlgorithmError } from './error.ts';
export { groupIds, groupMeanStd, groupStatistics, groupsOf } from './groups.ts';
export { KL_PENALTIES, klPenalty } from './kl.ts';
export {
  applyKlPenalty,
  type KlController,
  type KlControllerOptions,
  klController,
  penalisedRewards,
} from './kl-controller.ts';
export {
  maskedMean,
  maskedMeanOf,
  maskedRowMeans,
  maskedRowSums,
  maskedSum,
  maskedVar,
  maskedWhiten,
  maskTotal,
  responseMask,
} from './masked.ts';
export { type DataMetricsInput, dataMetrics } from './metrics/data-metrics.ts';
export { majorityValue } from './metrics/majority.ts';
export { seqlenUnbalance, throughputMetrics, timingMetrics } from './metrics/timing.ts';
export { varianceProxyMetrics } from './metrics/variance-proxy.ts';
export { POLICY_LOSSES } from './policy-losses/index.ts';
export {
  offPolicyMetrics,
  ROLLOUT_RS_OPTIONS,
  rolloutCorrection,
  rolloutCorrectionWeights,
  rolloutRejectionMask,
  type WeightOptions,
} from './rollout-correction/index.ts';
export { clamp } from './rows.ts';
export type * from './types.ts';
export { valueLoss } from './value-loss.ts';
