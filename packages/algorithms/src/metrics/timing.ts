/** @file Times, throughput and balance. */
import { AlgorithmError } from '../error.ts';
import { extremes, sumOf } from '../rows.ts';

/** Phases that have a time per token, by the tokens they work on. */
const PER_TOKEN: Readonly<Record<string, 'response' | 'all'>> = {
  gen: 'response',
  ref: 'all',
  values: 'all',
  adv: 'all',
  update_critic: 'all',
  update_actor: 'all',
};

/**
 * timing_s/<phase> and, for phases that work on tokens, timing_per_token_ms/<phase>.
 * @param seconds by phase
 * @throws AlgorithmError when there is no token
 */
export function timingMetrics(
  seconds: Readonly<Record<string, number>>,
  tokens: { prompt: number; response: number },
): Record<string, number> {
  const metrics: Record<string, number> = {};
  for (const [phase, s] of Object.entries(seconds)) {
    metrics[`timing_s/${phase}`] = s;
    const kind = PER_TOKEN[phase];
    if (!kind) continue;
    const count = kind === 'response' ? tokens.response : tokens.prompt + tokens.response;
    if (count === 0) throw new AlgorithmError(`timing of ${phase}: the batch has no token`);
    metrics[`timing_per_token_ms/${phase}`] = (s * 1000) / count;
  }
  return metrics;
}

/** @param tokens prompt and response tokens of each row; seconds: of the whole step */
export function throughputMetrics(tokens: ArrayLike<number>, seconds: number, workers: number): Record<string, number> {
  const total = sumOf(tokens);
  return {
    'perf/total_num_tokens': total,
    'perf/time_per_step': seconds,
    'perf/throughput': total / (seconds * workers),
  };
}

/** How uneven the rows are over workers, as they came (cut in order) and after balancing. */
export function seqlenUnbalance(
  lengths: readonly number[],
  partitions: readonly (readonly number[])[],
  prefix: string,
): Record<string, number> {
  const size = Math.floor(lengths.length / partitions.length);
  const cut: number[] = [];
  for (let at = 0; at < lengths.length; at += size) cut.push(sumOf(lengths.slice(at, at + size)));
  const plain = extremes(cut);
  const balanced = extremes(partitions.map((part) => sumOf(part.map((i) => lengths[i]!))));
  return {
    [`${prefix}/min`]: plain.min,
    [`${prefix}/max`]: plain.max,
    [`${prefix}/minmax_diff`]: plain.max - plain.min,
    [`${prefix}/balanced_min`]: balanced.min,
    [`${prefix}/balanced_max`]: balanced.max,
    [`${prefix}/mean`]: sumOf(lengths) / partitions.length,
  };
}
