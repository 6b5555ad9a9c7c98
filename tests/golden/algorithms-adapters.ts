/** @file Calls our algorithms with the arguments of verl's functions, and names the results as verl does. */
import * as ours from '@frame-thinker/algorithms';

type Rows = number[][];

/** Arguments of all functions of the fixtures; each function's own are present. */
export interface VerlArguments {
  token_level_rewards: Rows;
  token_level_scores: Rows;
  response_mask: Rows;
  response_id: Rows;
  eos_token: number | number[];
  index: string[];
  scores: number[];
  gidx: number[];
  norm_adv_by_std_in_grpo?: boolean;
  epsilon?: number;
  eps?: number;
  gamma?: number;
  lam?: number;
  reward_baselines?: number[];
  old_log_probs: Rows;
  sum_pi_squared: Rows;
  rollout_is_weights?: Rows | null;
  handle_zero_tail?: boolean;
  config?: VerlConfig;
  non_tensor_batch?: Record<string, number[]>;
  batch: Record<string, Rows>;
  meta_info: { global_token_num: number[] };
  loss_mat: Rows;
  loss_mask: Rows;
  loss_agg_mode: ours.LossAggMode;
  dp_size?: number;
  batch_num_tokens?: number | null;
  global_batch_size?: number | null;
  loss_scale_factor?: number | null;
  old_log_prob: Rows;
  log_prob: Rows;
  ref_log_prob: Rows;
  rollout_log_prob: Rows;
  advantages: Rows;
  perm?: number[];
  vpreds: Rows;
  values: Rows;
  returns: Rows;
  cliprange_value: number;
  logits: number[][][];
  logprob: Rows;
  ref_logprob: Rows;
  kl_penalty: string;
  kl_ratio: number;
  type: 'fixed' | 'adaptive';
  kl_coef: number;
  target_kl?: number;
  horizon?: number;
  updates: [number, number][];
  controller: { type: 'fixed' | 'adaptive'; kl_coef: number; target_kl?: number; horizon?: number };
  mask: Rows;
  axis?: number | null;
  unbiased?: boolean;
  shift_mean?: boolean;
  x: Rows;
  tensor_min: Rows;
  tensor_max: Rows;
  log_ratio: Rows;
  rollout_is?: 'token' | 'sequence' | null;
  rollout_is_threshold?: number | string;
  rollout_is_batch_normalize?: boolean;
  rollout_rs?: string | null;
  rollout_rs_threshold?: string | number | null;
  seqlen_list: number[];
  uid_list: string[];
  k_partitions: number;
  equal_size: boolean;
  max_token_len: number;
  min_num_micro_batch?: number | null;
  num_batches_divided_by?: number | null;
  use_dynamic_bsz_balance?: boolean;
  use_critic: boolean;
  timing_raw: Record<string, number>;
  n_gpus: number;
  gradient_norm?: number | null;
  data: Record<string, string | number>[];
  vote_key: string;
  val_key: string;
}

interface VerlConfig {
  norm_adv_by_std_in_grpo?: boolean;
  gamma?: number;
  gdpo_reward_keys?: string[];
  gdpo_reward_weights?: number[];
  clip_ratio?: number;
  clip_ratio_low?: number | null;
  clip_ratio_high?: number | null;
  clip_ratio_c?: number;
  tau_pos?: number;
  tau_neg?: number;
  global_batch_info?: Partial<
    Pick<VerlArguments, 'dp_size' | 'batch_num_tokens' | 'global_batch_size' | 'loss_scale_factor'>
  >;
  policy_loss?: {
    clip_cov_ratio?: number;
    clip_cov_lb?: number;
    clip_cov_ub?: number;
    kl_cov_ratio?: number;
    ppo_kl_coef?: number;
    dro_beta?: number | null;
    rollout_correction?: {
      loss_type?: 'ppo_clip' | 'reinforce';
      rollout_is?: 'token' | 'sequence' | null;
      rollout_is_threshold?: number | string;
      rollout_is_batch_normalize?: boolean;
      rollout_rs?: string | null;
      rollout_rs_threshold?: number | string | null;
    };
  };
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined | null> };
/** The entries that are neither undefined nor None. */
function given<T extends object>(values: T): Given<T> {
  return Object.fromEntries(Object.entries(values).filter(([, x]) => x !== undefined && x !== null)) as Given<T>;
}

const aggregation = (a: NonNullable<VerlConfig['global_batch_info']>) =>
  given({
    dpSize: a.dp_size,
    batchNumTokens: a.batch_num_tokens,
    globalBatchSize: a.global_batch_size,
    lossScaleFactor: a.loss_scale_factor,
  });

const advantage = (name: string) => (a: VerlArguments) =>
  ours.ADVANTAGE_ESTIMATORS.get(name)!(
    {
      tokenLevelRewards: a.token_level_rewards,
      mask: a.response_mask,
      ...given({
        index: a.index,
        rewardBaselines: a.reward_baselines,
        values: a.values,
        oldLogProbs: a.old_log_probs,
        sumPiSquared: a.sum_pi_squared,
        rolloutIsWeights: a.rollout_is_weights,
        scores: a.non_tensor_batch,
      }),
    },
    given({
      normAdvByStdInGrpo: a.norm_adv_by_std_in_grpo ?? a.config?.norm_adv_by_std_in_grpo,
      epsilon: a.epsilon,
      gamma: a.gamma ?? a.config?.gamma,
      lam: a.lam,
      handleZeroTail: a.handle_zero_tail,
      gdpoRewardKeys: a.config?.gdpo_reward_keys,
      gdpoRewardWeights: a.config?.gdpo_reward_weights,
    }),
  );

/** The README's defaults: both sides of the clip are given there, so that clip_ratio counts only where they are None. */
const CLIP_DEFAULTS = { clip_ratio: 0.2, clip_ratio_low: 0.2, clip_ratio_high: 0.2, clip_ratio_c: 3 };

function policyLossOptions(a: VerlArguments): ours.PolicyLossOptions {
  const config: VerlConfig = { ...CLIP_DEFAULTS, ...a.config };
  const special = config.policy_loss ?? {};
  const correction = special.rollout_correction;
  return {
    lossAggMode: a.loss_agg_mode,
    ...aggregation(config.global_batch_info ?? {}),
    ...given({
      clipRatio: config.clip_ratio,
      clipRatioLow: config.clip_ratio_low,
      clipRatioHigh: config.clip_ratio_high,
      clipRatioC: config.clip_ratio_c,
      tauPos: config.tau_pos,
      tauNeg: config.tau_neg,
      clipCovRatio: special.clip_cov_ratio,
      clipCovLb: special.clip_cov_lb,
      clipCovUb: special.clip_cov_ub,
      klCovRatio: special.kl_cov_ratio,
      ppoKlCoef: special.ppo_kl_coef,
      droBeta: special.dro_beta,
      permutation: a.perm && ((n: number) => a.perm!.filter((i) => i < n)),
      rolloutCorrection:
        correction &&
        given({
          lossType: correction.loss_type,
          rolloutIs: correction.rollout_is,
          rolloutIsThreshold: correction.rollout_is_threshold,
          rolloutIsBatchNormalize: correction.rollout_is_batch_normalize,
          rolloutRs: correction.rollout_rs,
          rolloutRsThreshold: correction.rollout_rs_threshold,
        }),
    }),
  };
}

const policyLoss = (name: string) => (a: VerlArguments) => {
  const { loss, metrics, gradLogProb } = ours.POLICY_LOSSES.get(name)!(
    {
      oldLogProb: a.old_log_prob,
      logProb: a.log_prob,
      advantages: a.advantages,
      mask: a.response_mask,
      ...given({ rolloutIsWeights: a.rollout_is_weights }),
    },
    policyLossOptions(a),
  );
  return { loss, metrics, grad_log_prob: gradLogProb };
};

const controllerOf = (c: VerlArguments['controller']) =>
  ours.klController({ type: c.type, klCoef: c.kl_coef, ...given({ targetKl: c.target_kl, horizon: c.horizon }) });

function dataMetrics({ batch: b, non_tensor_batch: extra = {}, use_critic }: VerlArguments): Record<string, number> {
  const width = b.responses![0]!.length;
  const count = (row: number[]) => row.reduce((sum, x) => sum + x, 0);
  return ours.dataMetrics({
    tokenLevelScores: b.token_level_scores!,
    tokenLevelRewards: b.token_level_rewards!,
    advantages: b.advantages!,
    returns: b.returns!,
    mask: b.response_mask!,
    promptLengths: b.attention_mask!.map((row) => count(row.slice(0, -width))),
    responseLengths: b.attention_mask!.map((row) => count(row.slice(-width))),
    maxPromptLength: b.attention_mask![0]!.length - width,
    maxResponseLength: width,
    ...given({
      values: use_critic ? b.values : undefined,
      numTurns: extra.__num_turns__,
      toolCallCounts: extra.tool_call_counts,
    }),
  });
}

function timingMetrics({ batch: b, timing_raw }: VerlArguments): Record<string, number> {
  const width = b.responses![0]!.length;
  const total = (rows: Rows) => rows.flat().reduce((sum, x) => sum + x, 0);
  return ours.timingMetrics(timing_raw, {
    prompt: total(b.attention_mask!.map((row) => row.slice(0, -width))),
    response: total(b.attention_mask!.map((row) => row.slice(-width))),
  });
}

const correctionOptions = (a: VerlArguments) =>
  given({
    rolloutIs: a.rollout_is,
    rolloutIsThreshold: a.rollout_is_threshold,
    rolloutIsBatchNormalize: a.rollout_is_batch_normalize,
    rolloutRs: a.rollout_rs,
    rolloutRsThreshold: a.rollout_rs_threshold,
  });

const FUNCTIONS: Record<string, (a: VerlArguments) => unknown> = {
  agg_loss: (a) => {
    const { loss, gradLossMat } = ours.aggLoss(a.loss_mat, a.loss_mask, {
      lossAggMode: a.loss_agg_mode,
      ...aggregation(a),
    });
    return { loss, grad_loss_mat: gradLossMat };
  },
  compute_value_loss: (a) => {
    const { loss, clipFraction, gradPredictions } = ours.valueLoss({
      predictions: a.vpreds,
      values: a.values,
      returns: a.returns,
      mask: a.response_mask,
      clipRange: a.cliprange_value,
      lossAggMode: a.loss_agg_mode,
    });
    return { vf_loss: loss, vf_clipfrac: clipFraction, grad_vpreds: gradPredictions };
  },
  compute_entropy_loss: (a) => {
    const { loss, gradLogits } = ours.entropyLoss(a.logits, a.response_mask, { lossAggMode: a.loss_agg_mode });
    return { entropy_loss: loss, grad_logits: gradLogits };
  },
  kl_penalty: (a) => {
    const { kl, gradLogProb } = ours.klPenalty(a.logprob, a.ref_logprob, a.kl_penalty);
    return { kl, grad_logprob_of_sum: gradLogProb };
  },
  compute_rewards: (a) => ours.penalisedRewards(a.token_level_scores, a.old_log_prob, a.ref_log_prob, a.kl_ratio),
  kl_controller: (a) => {
    const controller = controllerOf(a);
    const values = [controller.value];
    for (const [kl, steps] of a.updates) {
      controller.update(kl, steps);
      values.push(controller.value);
    }
    return { values };
  },
  apply_kl_penalty: (a) => {
    const controller = controllerOf(a.controller);
    const { tokenLevelRewards, metrics } = ours.applyKlPenalty({
      tokenLevelScores: a.token_level_scores,
      oldLogProbs: a.old_log_probs,
      refLogProb: a.ref_log_prob,
      mask: a.response_mask,
      kind: a.kl_penalty,
      controller,
    });
    return { token_level_rewards: tokenLevelRewards, metrics, coef_after: controller.value };
  },
  masked_sum: (a) =>
    typeof a.axis === 'number' ? ours.maskedRowSums(a.values, a.mask) : ours.maskedSum(a.values, a.mask),
  masked_mean: (a) =>
    typeof a.axis === 'number' ? ours.maskedRowMeans(a.values, a.mask) : ours.maskedMean(a.values, a.mask),
  masked_var: (a) => ours.maskedVar(a.values, a.mask, given({ unbiased: a.unbiased })),
  masked_whiten: (a) => ours.maskedWhiten(a.values, a.mask, given({ shiftMean: a.shift_mean })),
  clip_by_value: (a) =>
    a.x.map((row, i) => row.map((x, t) => ours.clamp(x, a.tensor_min[i]![t]!, a.tensor_max[i]![t]!))),
  get_response_mask: (a) => ours.responseMask(a.response_id, a.eos_token),
  group_mean_std: (a) => ours.groupMeanStd(a.scores, a.gidx ?? ours.groupIds(a.index), a.eps),
  compute_rollout_correction_weights: (a) =>
    ours.rolloutCorrectionWeights(a.log_ratio, a.response_mask, { rolloutIs: 'token', ...correctionOptions(a) }),
  compute_rollout_rejection_mask: (a) => {
    const { mask, metrics } = ours.rolloutRejectionMask(a.log_ratio, a.response_mask, {
      rolloutRs: a.rollout_rs,
      threshold: a.rollout_rs_threshold,
    });
    return { modified_response_mask: mask, metrics };
  },
  compute_offpolicy_metrics: (a) =>
    ours.offPolicyMetrics({
      oldLogProb: a.old_log_prob,
      rolloutLogProb: a.rollout_log_prob,
      mask: a.response_mask,
    }),
  compute_rollout_correction_and_rejection_mask: (a) => {
    const { weights, mask, metrics } = ours.rolloutCorrection(
      { oldLogProb: a.old_log_prob, rolloutLogProb: a.rollout_log_prob, mask: a.response_mask },
      correctionOptions(a),
    );
    return { weights: weights ?? null, modified_response_mask: mask, metrics };
  },
  karmarkar_karp: (a) => ours.karmarkarKarp(a.seqlen_list, a.k_partitions, a.equal_size),
  get_seqlen_balanced_partitions: (a) => ours.balancedPartitions(a.seqlen_list, a.k_partitions, a.equal_size),
  greedy_partition: (a) => ours.greedyPartition(a.seqlen_list, a.k_partitions, a.equal_size),
  get_group_balanced_partitions: (a) => ours.groupBalancedPartitions(a.seqlen_list, a.uid_list, a.k_partitions),
  rearrange_micro_batches: (a) =>
    ours.microBatches(a.seqlen_list, {
      maxTokenLen: a.max_token_len,
      ...given({
        minNumMicroBatch: a.min_num_micro_batch,
        numBatchesDividedBy: a.num_batches_divided_by,
        useDynamicBszBalance: a.use_dynamic_bsz_balance,
      }),
    }),
  compute_data_metrics: dataMetrics,
  compute_timing_metrics: timingMetrics,
  compute_throughout_metrics: (a) => ours.throughputMetrics(a.meta_info.global_token_num, a.timing_raw.step!, a.n_gpus),
  compute_variance_proxy_metrics: (a) => {
    const { sum_pi_squared, old_log_probs, advantages, response_mask, rollout_is_weights } = a.batch;
    if (!sum_pi_squared || !old_log_probs || !advantages) return {};
    return ours.varianceProxyMetrics({
      oldLogProbs: old_log_probs,
      sumPiSquared: sum_pi_squared,
      advantages,
      mask: response_mask!,
      ...given({ rolloutIsWeights: rollout_is_weights, gradientNorm: a.gradient_norm }),
    });
  },
  calc_maj_val: (a) => ours.majorityValue(a.data.map((d) => ({ vote: d[a.vote_key]!, value: Number(d[a.val_key]) }))),
};

/** Our counterpart of a fixture's function; undefined when there is none. */
export function counterpart(fn: string): ((a: VerlArguments) => unknown) | undefined {
  const [kind, name] = fn.split(':');
  if (kind === 'adv' && name) return ours.ADVANTAGE_ESTIMATORS.has(name) ? advantage(name) : undefined;
  if (kind === 'policy_loss' && name) return ours.POLICY_LOSSES.has(name) ? policyLoss(name) : undefined;
  return FUNCTIONS[fn];
}
