/** @file Builds one training sequence piece by piece: token ids, a loss weight per token, frames, position jumps. */

export interface TokenSequence {
  ids: Int32Array;
  /** Loss weight of each token; 0: read, not learnt. */
  weights: Float32Array;
  /** Frames in order of appearance: index in the video, and index in ids of the first image_pad. */
  frames: { index: number; position: number }[];
  /** Before token `index`, `by` positions are skipped, as if frames had been there. */
  jumps: { index: number; by: number }[];
}

export interface SequenceEncoder {
  encode(text: string): number[];
  /** Image pads of one frame at the model's size. */
  imageTokens: number;
}

export class TokenSequenceBuilder {
  readonly #encoder: SequenceEncoder;
  readonly #ids: number[] = [];
  readonly #weights: number[] = [];
  readonly #frames: TokenSequence['frames'] = [];
  readonly #jumps: TokenSequence['jumps'] = [];

  constructor(encoder: SequenceEncoder) {
    this.#encoder = encoder;
  }

  add(text: string, weight = 0): this {
    for (const id of this.#encoder.encode(text)) {
      this.#ids.push(id);
      this.#weights.push(weight);
    }
    return this;
  }

  frame(index: number): this {
    this.#frames.push({ index, position: this.#ids.length + 1 });
    return this.add(`<|vision_start|>${'<|image_pad|>'.repeat(this.#encoder.imageTokens)}<|vision_end|>`);
  }

  jump(by: number): this {
    if (by > 0) this.#jumps.push({ index: this.#ids.length, by });
    return this;
  }

  build(): TokenSequence {
    return {
      ids: Int32Array.from(this.#ids),
      weights: Float32Array.from(this.#weights),
      frames: this.#frames,
      jumps: this.#jumps,
    };
  }
}
