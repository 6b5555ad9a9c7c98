/**
 * @file The one representation of per-token values: a list of rows, one a trajectory, of any lengths (a rectangular batch is
 * rows of one length). The mask is 1 on tokens that the policy sampled; what stands where it is 0 never matters.
 */

/** Per-token values: `rows[i][t]` is token t of trajectory i. */
export type Rows = readonly ArrayLike<number>[];

/** What estimators may need; each says in its docstring what it uses. Every Rows has the lengths of `mask`. */
export interface AdvantageBatch {
  tokenLevelRewards: Rows;
  mask: Rows;
  /** The group (question) of each row. */
  index?: readonly string[];
  /** One baseline reward a row (remax). */
  rewardBaselines?: ArrayLike<number>;
  values?: Rows;
  oldLogProbs?: Rows;
  /** Σ over the vocabulary of π², per token (optimal token baselines). */
  sumPiSquared?: Rows;
  rolloutIsWeights?: Rows;
  /** Named scores, one a row (gdpo). */
  scores?: Readonly<Record<string, ArrayLike<number>>>;
}

export interface AdvantageOptions {
  /** false is Dr.GRPO: subtract the mean only. Default true. */
  normAdvByStdInGrpo?: boolean;
  /** Default 1e-6 (1e-8 for the optimal token baselines). */
  epsilon?: number;
  gamma?: number;
  lam?: number;
  handleZeroTail?: boolean;
  /** gdpo: names of `scores` and their weights. */
  gdpoRewardKeys?: readonly string[];
  gdpoRewardWeights?: readonly number[];
}

export interface Advantages {
  advantages: Float64Array[];
  returns: Float64Array[];
}

export type AdvantageEstimator = (batch: AdvantageBatch, options?: AdvantageOptions) => Advantages;

export type LossAggMode = 'token-mean' | 'seq-mean-token-sum' | 'seq-mean-token-sum-norm' | 'seq-mean-token-mean';

/** How a loss per token becomes one number; the figures of the whole mini-batch make micro-batches add up. */
export interface AggOptions {
  lossAggMode: LossAggMode;
  /** Default 1. */
  dpSize?: number;
  /** Tokens with mask 1 in the whole mini-batch (token-mean). Default: of these rows. */
  batchNumTokens?: number;
  /** Rows in the whole mini-batch (seq-mean modes). Default: rows here with a token. */
  globalBatchSize?: number;
  /** Divisor of seq-mean-token-sum-norm. Default: the longest row here. */
  lossScaleFactor?: number;
}

export interface PolicyLossInput {
  oldLogProb: Rows;
  logProb: Rows;
  advantages: Rows;
  mask: Rows;
  rolloutIsWeights?: Rows;
}

/** verl's actor settings; the defaults are verl's. */
export interface PolicyLossOptions extends AggOptions {
  /** Default 0.2. */
  clipRatio?: number;
  /** Default clipRatio. */
  clipRatioLow?: number;
  /** Default clipRatio. */
  clipRatioHigh?: number;
  /** Dual clip, above 1. Default 3. */
  clipRatioC?: number;
  tauPos?: number;
  tauNeg?: number;
  clipCovRatio?: number;
  clipCovLb?: number;
  clipCovUb?: number;
  klCovRatio?: number;
  ppoKlCoef?: number;
  droBeta?: number | null;
  /** clip_cov: a random order of n candidates. Required by it. */
  permutation?: (n: number) => ArrayLike<number>;
  /** bypass_mode: how rollout weights and rejection are computed. */
  rolloutCorrection?: RolloutCorrectionOptions;
}

export interface RolloutCorrectionOptions {
  /** Which loss bypass_mode takes: 'ppo_clip' or 'reinforce'. */
  lossType?: 'ppo_clip' | 'reinforce';
  rolloutIs?: 'token' | 'sequence' | null;
  rolloutIsThreshold?: number | string;
  rolloutIsBatchNormalize?: boolean;
  rolloutRs?: string | null;
  rolloutRsThreshold?: number | string | null;
}

export interface PolicyLossOutput {
  loss: number;
  /** Under verl's names: actor/pg_clipfrac, actor/ppo_kl, actor/pg_clipfrac_lower, … */
  metrics: Record<string, number>;
  /** ∂loss/∂logProb, rows of the lengths of logProb. */
  gradLogProb: Float64Array[];
}

export type PolicyLoss = (input: PolicyLossInput, options: PolicyLossOptions) => PolicyLossOutput;
