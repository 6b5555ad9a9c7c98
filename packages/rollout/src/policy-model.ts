/** @file What decoding needs of a model: sequences in slots, grown by spans or by one token a step. */
import type { FrameRef } from '@frame-thinker/core';

/** New tokens of a sequence, with the images whose pads are among them, in order. */
export interface Span {
  ids: Int32Array;
  images: readonly FrameRef[];
}

/** A prompt that went through the model once, to be forked into slots. */
export interface Prefix {
  /** Tokens in it. */
  readonly length: number;
  /** Logits of the next token: [vocabSize]. */
  readonly logits: Float32Array;
}

/** One span for the sequence in `slot`. */
export interface Extension {
  slot: number;
  span: Span;
}

/**
 * A causal language model with `slots` cached sequences. A sequence's logits depend on its own tokens alone (to rounding).
 * Weights must not change between `prefill` and the last `step` of a sequence.
 */
export interface PolicyModel {
  readonly slots: number;
  readonly vocabSize: number;
  /** Runs a prompt once. */
  prefill(span: Span): Promise<Prefix>;
  /** Puts a copy of a prefix into a slot, replacing what was there. */
  fork(prefix: Prefix, slot: number): void;
  /** Appends spans to the sequences of different slots; the logits after each span's last token, [vocabSize] each, in order. */
  extend(extensions: readonly Extension[]): Promise<Float32Array[]>;
  /** Appends one token to each slot whose entry is >= 0. Logits of all slots, [slots · vocabSize]; rows of the others are meaningless. */
  step(tokens: Int32Array): Promise<Float32Array>;
  /** Forgets the sequence of a slot. */
  release(slot: number): void;
}
