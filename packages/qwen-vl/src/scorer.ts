/** @file Log-probs and entropies of whole sequences, and the gradients of what their cotangents say. */
import type { Engine, ParameterSet, Tensor } from '@frame-thinker/graph';
import { MASKED } from './attention.ts';
import type { QwenVLConfig } from './config.ts';
import { createProgramCache } from './program-cache.ts';
import { type ScoreShape, scoreBytes, scoreGraph } from './score-graph.ts';
import { collectFeatures, float, int, layOutRows, placeFeatures, type ScoreRow } from './score-layout.ts';
import type { VisionEncoder } from './vision-encoder.ts';

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
  /**
   * Adds the gradients of Σ dLogProbs·logProbs + dEntropy·entropy, vision tower included, to parameters.gradients.
   * Entropies are computed only if some dEntropy is not 0 or `entropy` asks for them; else they are 0.
   */
  backward(
    batch: ScoreBatch,
    options: ScoreOptions & {
      dLogProbs: readonly Float32Array[];
      dEntropy?: readonly Float32Array[];
      entropy?: boolean;
    },
  ): Promise<Scores>;
  release(): Promise<void>;
}

/** The next of 64, 96, 128, 192, 256, 384, …: few shapes, at most a third of padding. */
export function scoredBucket(n: number): number {
  let size = 64;
  while (size < n) size *= 2;
  return size > 64 && 0.75 * size >= n ? 0.75 * size : size;
}

export function createScorer(options: {
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
}): Scorer {
  const { engine, parameters, config, vision, chunk = 64, lengthBucket = 64, prefixBucket = 32 } = options;
  const { hidden, vocab } = config;
  const programs = createProgramCache({ engine, parameters, bytes: options.programBytes ?? 1.5e9 });

  const run = async (
    { rows }: ScoreBatch,
    settings: ScoreOptions & {
      entropy: boolean;
      dLogProbs?: readonly Float32Array[];
      dEntropy?: readonly Float32Array[];
    },
  ): Promise<Scores> => {
    const { temperature, ban, entropy, dLogProbs, dEntropy } = settings;
    const scores: Scores = {
      logProbs: rows.map(({ ids }) => new Float32Array(ids.length)),
      entropy: rows.map(({ ids }) => new Float32Array(ids.length)),
    };
    const layout = layOutRows({ rows, config, prefixBucket, lengthBucket });
    const { scored, tokens } = layout;
    if (scored.length === 0) return scores;
    const shape: ScoreShape = {
      prefix: layout.prefix,
      rows: rows.length,
      length: layout.length,
      scored: scoredBucket(scored.length),
      chunk,
      images: layout.images.length > 0,
      ban: ban.length > 0,
      entropy,
      backward: dLogProbs !== undefined,
    };
    const at = new Int32Array(shape.scored);
    const targets = new Int32Array(shape.scored);
    scored.forEach(({ row, token, at: before }, n) => {
      at[n] = before;
      targets[n] = rows[row]!.ids[token]!;
    });
    const all: Record<string, Tensor> = {
      ...layout.inputs,
      at: int(at, [shape.scored]),
      targets: int(targets, [shape.scored, 1]),
      inverse_temperature: float(Float32Array.of(1 / temperature), []),
    };
    if (shape.ban) {
      const added = new Float32Array(vocab);
      for (const id of ban) added[id] = MASKED;
      all.ban = float(added, [vocab]);
    }
    if (shape.images) {
      const features = placeFeatures(layout, await vision.encode(layout.images), hidden);
      const text = Float32Array.from(layout.image, (image) => (image < 0 ? 1 : 0));
      all.features = float(features, [tokens, hidden]);
      all.text_mask = float(text, [tokens, 1]);
    }
    const cotangent = (given: readonly Float32Array[]): Tensor => {
      const data = new Float32Array(shape.scored);
      scored.forEach(({ row, token }, n) => {
        data[n] = given[row]![token]!;
      });
      return float(data, [shape.scored]);
    };
    if (dLogProbs) all.d_log_probs = cotangent(dLogProbs);
    if (dLogProbs && entropy)
      all.d_entropy = dEntropy ? cotangent(dEntropy) : float(new Float32Array(shape.scored), [shape.scored]);

    const out = await programs.run(
      {
        key: `score ${JSON.stringify(shape)}`,
        bytes: scoreBytes(config, shape),
        build: () => scoreGraph(config, shape),
      },
      all,
    );
    const { log_probs: logProbs, entropy: entropies, d_features: dFeatures, ...gradients } = out;
    scored.forEach(({ row, token }, n) => {
      scores.logProbs[row]![token] = logProbs!.data[n]!;
      if (entropies) scores.entropy[row]![token] = entropies.data[n]!;
    });
    for (const [name, gradient] of Object.entries(gradients))
      parameters.gradients.accumulate(name, gradient.data as Float32Array);
    // An image that stands in several places gets the sum of its cotangents; one pass of the tower for all.
    if (dFeatures)
      await vision.backward(layout.images, collectFeatures(layout, dFeatures.data as Float32Array, config));
    return scores;
  };

  return {
    forward: (batch, settings) => run(batch, { ...settings, entropy: settings.entropy ?? true }),
    backward: (batch, settings) => {
      const used = settings.dEntropy?.some((row) => row.some((x) => x !== 0)) ?? false;
      return run(batch, { ...settings, entropy: used || (settings.entropy ?? false) });
    },
    release: () => programs.release(),
  };
}
