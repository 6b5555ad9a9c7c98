/** @file Figures of a batch of trajectories. */
import { AlgorithmError } from '../error.ts';
import { selected } from '../masked.ts';
import { extremes, meanOf, sumOf, varianceOf } from '../rows.ts';
import type { Rows } from '../types.ts';

export interface DataMetricsInput {
  /** Before the KL penalty. */
  tokenLevelScores: Rows;
  /** After it. */
  tokenLevelRewards: Rows;
  advantages: Rows;
  returns: Rows;
  /** With a critic. */
  values?: Rows;
  /** 1 on tokens that the policy sampled. */
  mask: Rows;
  /** Tokens of each row, observations included. */
  promptLengths: ArrayLike<number>;
  responseLengths: ArrayLike<number>;
  /** The limits, for the clip ratios. */
  maxPromptLength: number;
  maxResponseLength: number;
  numTurns?: ArrayLike<number>;
  toolCallCounts?: ArrayLike<number>;
}

function summary(name: string, values: ArrayLike<number>): Record<string, number> {
  const { max, min } = extremes(values);
  return { [`${name}/mean`]: meanOf(values), [`${name}/max`]: max, [`${name}/min`]: min };
}
const shareOf = (values: ArrayLike<number>, wanted: number): number =>
  Array.from(values).filter((x) => x === wanted).length / values.length;

function valueMetrics(values: number[], returns: number[]): Record<string, number> {
  const rest = varianceOf(returns.map((x, i) => x - values[i]!));
  return {
    ...summary('critic/values', values),
    'critic/vf_explained_var': 1 - rest / (varianceOf(returns) + 1e-5),
  };
}

/**
 * Scores and rewards over rows that have a response token, advantages, returns and values over tokens of the mask, lengths over
 * all rows.
 * @throws AlgorithmError when no row has a response token
 */
export function dataMetrics(input: DataMetricsInput): Record<string, number> {
  const { mask, responseLengths, promptLengths, maxPromptLength, maxResponseLength, numTurns, toolCallCounts } = input;
  const lengths = Array.from(responseLengths);
  const present = lengths.flatMap((length, i) => (length > 0 ? [i] : []));
  if (present.length === 0) throw new AlgorithmError('data metrics: no trajectory of this batch has a response token');
  const presentLengths = present.map((i) => lengths[i]!);
  const returns = selected(input.returns, mask);
  return {
    ...summary(
      'critic/score',
      present.map((i) => sumOf(input.tokenLevelScores[i]!)),
    ),
    ...summary(
      'critic/rewards',
      present.map((i) => sumOf(input.tokenLevelRewards[i]!)),
    ),
    ...summary('critic/advantages', selected(input.advantages, mask)),
    ...summary('critic/returns', returns),
    ...(input.values ? valueMetrics(selected(input.values, mask), returns) : {}),
    ...summary('response_length', lengths),
    'response_length/clip_ratio': shareOf(lengths, maxResponseLength),
    ...summary('response_length_non_aborted', presentLengths),
    'response_length_non_aborted/clip_ratio': shareOf(presentLengths, maxResponseLength),
    'response/aborted_ratio': 1 - present.length / lengths.length,
    ...summary('prompt_length', promptLengths),
    'prompt_length/clip_ratio': shareOf(promptLengths, maxPromptLength),
    ...(numTurns ? summary('num_turns', numTurns) : {}),
    ...(toolCallCounts ? summary('tool_call_counts', toolCallCounts) : {}),
  };
}
