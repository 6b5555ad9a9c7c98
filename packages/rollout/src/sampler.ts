/** @file Draws a token from logits. Everything in float64; one uniform number a token. */
import { RunError, type SamplingOptions } from '@frame-thinker/core';

export interface TokenDraw {
  id: number;
  /** log softmax(logits / temperature)[id] over the full vocabulary without the banned ids. */
  logProb: number;
}

/** Scratch memory, reused from token to token. */
export interface SamplerScratch {
  scaled: Float64Array;
  /** exp(scaled − their maximum). */
  weights: Float64Array;
}

export function createScratch(vocabSize: number): SamplerScratch {
  return { scaled: new Float64Array(vocabSize), weights: new Float64Array(vocabSize) };
}

/** The ids that top-k and then top-p leave, as a mask; the most probable one always stays. Ties go to the smaller id. */
function keptIds({ scaled, weights }: SamplerScratch, { topK, topP }: SamplingOptions): Uint8Array {
  const order = Array.from(scaled.keys()).sort((a, b) => scaled[b]! - scaled[a]! || a - b);
  const candidates = topK > 0 ? order.slice(0, topK) : order;
  const limit = topP * candidates.reduce((sum, id) => sum + weights[id]!, 0);
  const kept = new Uint8Array(scaled.length);
  let sum = 0;
  for (const id of candidates) {
    kept[id] = 1;
    sum += weights[id]!;
    if (sum >= limit) break;
  }
  return kept;
}

/**
 * Draws from softmax(logits / temperature) by inverse CDF in order of ids. Greedy (the smallest of the most probable ids) when
 * temperature is 0 or doSample false; greedy at temperature 0 takes log-probs at temperature 1.
 * @param logits [vocabSize]
 * @param ban ids with probability 0
 * @param uniform in [0, 1)
 * @throws RunError when the logits hold no finite maximum.
 */
export function sampleToken(
  logits: Float32Array,
  sampling: SamplingOptions,
  ban: readonly number[],
  uniform: number,
  scratch: SamplerScratch,
): TokenDraw {
  const { scaled, weights } = scratch;
  const temperature = sampling.temperature > 0 ? sampling.temperature : 1;
  for (let id = 0; id < scaled.length; id++) scaled[id] = logits[id]! / temperature;
  for (const id of ban) if (id < scaled.length) scaled[id] = -Infinity;
  let max = -Infinity;
  let best = -1;
  for (let id = 0; id < scaled.length; id++)
    if (scaled[id]! > max) {
      max = scaled[id]!;
      best = id;
    }
  if (!Number.isFinite(max))
    throw new RunError(
      'the policy gave logits without a finite maximum: its weights have diverged or are damaged; go on from an earlier checkpoint with a lower optim.lr',
    );
  let total = 0;
  for (let id = 0; id < scaled.length; id++) {
    weights[id] = Math.exp(scaled[id]! - max);
    total += weights[id]!;
  }
  if (Number.isNaN(total)) throw new RangeError('the policy gave NaN logits');
  const logTotal = Math.log(total);
  const draw = (id: number): TokenDraw => ({ id, logProb: scaled[id]! - max - logTotal });
  if (!sampling.doSample || sampling.temperature <= 0) return draw(best);

  const cut = sampling.topK > 0 || sampling.topP < 1;
  const kept = cut ? keptIds(scratch, sampling) : undefined;
  let mass = total;
  if (kept) {
    mass = 0;
    for (let id = 0; id < scaled.length; id++) if (kept[id]) mass += weights[id]!;
  }
  const target = uniform * mass;
  let sum = 0;
  let last = best;
  for (let id = 0; id < scaled.length; id++) {
    if (kept && !kept[id]) continue;
    const weight = weights[id]!;
    if (weight === 0) continue;
    sum += weight;
    last = id;
    if (sum > target) return draw(id);
  }
  // Rounding can leave the sum a hair below the target: the last possible id.
  return draw(last);
}
