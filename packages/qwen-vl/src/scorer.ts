/** @file Log-probs and entropies of whole sequences, and the gradients of what their cotangents say. */
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import type { PositionJump } from './positions.ts';
import type { ImageInput, VisionEncoder } from './vision-encoder.ts';

export interface ScoreRow {
  ids: Int32Array;
  /** In order of appearance. */
  images: readonly ImageInput[];
  jumps?: readonly PositionJump[];
  /** 1 on tokens whose log-prob is wanted (default: all but the first). The others get 0. Same length as ids. */
  scored?: Uint8Array;
}

export interface ScoreBatch {
  rows: readonly ScoreRow[];
}

export interface ScoreOptions {
  temperature: number;
  /** Ids that get −inf before the softmax. */
  ban: readonly number[];
}

/** A row each, aligned with ids: value i belongs to ids[i] given ids[<i]; 0 where not scored. Entropy in nats. */
export interface Scores {
  logProbs: Float32Array[];
  entropy: Float32Array[];
}

export interface Scorer {
  /** `entropy: false` leaves the entropies 0 (and saves their time). Default true. */
  forward(batch: ScoreBatch, options: ScoreOptions & { entropy?: boolean }): Promise<Scores>;
  /** Adds the gradients of Σ dLogProbs·logProbs + dEntropy·entropy to parameters.gradients. Entropies are 0 if dEntropy is absent or all 0. */
  backward(
    batch: ScoreBatch,
    options: ScoreOptions & { dLogProbs: readonly Float32Array[]; dEntropy?: readonly Float32Array[] },
  ): Promise<Scores>;
  release(): Promise<void>;
}

export function createScorer(_options: {
  engine: Engine;
  parameters: ParameterSet;
  config: QwenVLConfig;
  vision: VisionEncoder;
  /** Query chunk of the causal attention (default 64). */
  chunk?: number;
  /** Lengths are padded to multiples of it (default 64). */
  lengthBucket?: number;
  /** Compiled shapes kept (default 16). */
  programs?: number;
}): Scorer {
  throw new Error('not there yet');
}
