/** @file Runs a graph over the whole sequences of a batch: layout, image features, and the gradients of decoder and vision tower. */
import type { Engine, Graph, ParameterSet, Tensor } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { createProgramCache } from './program-cache.ts';
import type { SequenceShape } from './score-graph.ts';
import { collectFeatures, float, int, layOutRows, placeFeatures, type ScoreRow } from './score-layout.ts';
import type { VisionEncoder } from './vision-encoder.ts';

export interface SequenceOptions {
  engine: Engine;
  parameters: ParameterSet;
  config: QwenVLConfig;
  vision: VisionEncoder;
  /** Query chunk of the causal attention (default 64). */
  chunk?: number;
  /** Lengths are padded to multiples of it, short ones to multiples of a quarter of it (default 64). */
  lengthBucket?: number;
  /**
   * What all rows begin with (the prompt of a group) goes through the decoder once, forward and backward, cut down to a
   * multiple of it (default 32; Infinity: never).
   */
  prefixBucket?: number;
  /** Bound of the memory that compiled shapes hold on to (default 1.5 GB). */
  programBytes?: number;
}

/** What a batch's shape asks for: the graph, and its inputs beside those of the sequences. */
export interface SequencePlan {
  key: string;
  bytes: number;
  build: () => Graph;
  inputs: Record<string, Tensor>;
}

/** A value for each scored token, by output name; the gradients are in the parameters' buffer. */
export interface SequenceResult {
  scored: readonly { row: number; token: number }[];
  outputs: Record<string, Tensor>;
}

export interface SequenceRunner {
  /** @returns undefined when no token is scored */
  run(
    rows: readonly ScoreRow[],
    options: { backward: boolean; plan: (shape: SequenceShape, places: ScoredPlaces) => SequencePlan },
  ): Promise<SequenceResult | undefined>;
  release(): Promise<void>;
}

export interface ScoredPlaces {
  scored: readonly { row: number; token: number }[];
  /** Values aligned with ids, as a tensor over the scored tokens; 0 in its padding. */
  gather(values: readonly Float32Array[]): Tensor;
}

/** The next of 64, 96, 128, 192, 256, 384, …: few shapes, at most a third of padding. */
export function scoredBucket(n: number): number {
  let size = 64;
  while (size < n) size *= 2;
  return size > 64 && 0.75 * size >= n ? 0.75 * size : size;
}

/** Puts a value for each scored token where it belongs: rows aligned with ids, 0 elsewhere. */
export function scatterScored(rows: readonly ScoreRow[], result: SequenceResult | undefined, name: string) {
  const out = rows.map(({ ids }) => new Float32Array(ids.length));
  const data = result?.outputs[name]?.data;
  if (data)
    result.scored.forEach(({ row, token }, n) => {
      out[row]![token] = data[n]!;
    });
  return out;
}

export function createSequenceRunner(options: SequenceOptions): SequenceRunner {
  const { engine, parameters, config, vision, chunk = 64, lengthBucket = 64, prefixBucket = 32 } = options;
  const { hidden } = config;
  const programs = createProgramCache({ engine, parameters, bytes: options.programBytes ?? 1.5e9 });

  const run: SequenceRunner['run'] = async (rows, { backward, plan }) => {
    const layout = layOutRows({ rows, config, prefixBucket, lengthBucket });
    const { scored, tokens } = layout;
    if (scored.length === 0) return undefined;
    const shape: SequenceShape = {
      prefix: layout.prefix,
      rows: rows.length,
      length: layout.length,
      scored: scoredBucket(scored.length),
      chunk,
      images: layout.images.length > 0,
      backward,
    };
    const at = new Int32Array(shape.scored);
    scored.forEach((place, n) => {
      at[n] = place.at;
    });
    const gather = (values: readonly Float32Array[]): Tensor => {
      const data = new Float32Array(shape.scored);
      scored.forEach(({ row, token }, n) => {
        data[n] = values[row]![token]!;
      });
      return float(data, [shape.scored]);
    };
    const { inputs, ...program } = plan(shape, { scored, gather });
    const all: Record<string, Tensor> = { ...layout.inputs, at: int(at, [shape.scored]), ...inputs };
    if (shape.images) {
      const features = placeFeatures(layout, await vision.encode(layout.images), hidden);
      const text = Float32Array.from(layout.image, (image) => (image < 0 ? 1 : 0));
      all.features = float(features, [tokens, hidden]);
      all.text_mask = float(text, [tokens, 1]);
    }
    const outputs = await programs.run(program, all);
    for (const { name } of parameters.specs) {
      const gradient = outputs[name];
      if (gradient) parameters.gradients.accumulate(name, gradient.data as Float32Array);
    }
    // An image that stands in several places gets the sum of its cotangents; one pass of the tower for all.
    if (outputs.d_features)
      await vision.backward(layout.images, collectFeatures(layout, outputs.d_features.data as Float32Array, config));
    return { scored, outputs };
  };
  return { run, release: () => programs.release() };
}
