/** @file Log-probs and entropies of whole sequences, and the gradients of what their cotangents say. */
import type { Engine, ParameterSet, Tensor } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { MASKED } from './decoder.ts';
import { mropePositions, type PositionJump, ropeTables } from './positions.ts';
import { createProgramCache } from './program-cache.ts';
import { type ScoreShape, scoreGraph } from './score-graph.ts';
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

const roundUp = (n: number, step: number): number => Math.ceil(n / step) * step;

/** The next of 64, 96, 128, 192, 256, 384, …: few shapes, at most a third of padding. */
export function scoredBucket(n: number): number {
  let size = 64;
  while (size < n) size *= 2;
  return size > 64 && 0.75 * size >= n ? 0.75 * size : size;
}

const float = (data: Float32Array, shape: readonly number[]): Tensor => ({ dtype: 'float32', shape, data });
const int = (data: Int32Array, shape: readonly number[]): Tensor => ({ dtype: 'int32', shape, data });

/** Where the scored tokens of a batch are: parallel arrays. */
interface ScoredTokens {
  row: number[];
  token: number[];
}

function scoredTokens(rows: readonly ScoreRow[]): ScoredTokens {
  const out: ScoredTokens = { row: [], token: [] };
  rows.forEach(({ ids, scored }, row) => {
    if (scored && scored.length !== ids.length)
      throw new RangeError(`row ${row}: scored has ${scored.length} elements, ids ${ids.length}`);
    for (let i = 1; i < ids.length; i++)
      if (scored === undefined || scored[i]) {
        out.row.push(row);
        out.token.push(i);
      }
  });
  return out;
}

/** The images of a batch, each key once, with the place of every appearance. */
interface BatchImages {
  unique: ImageInput[];
  /** Of each appearance: index into unique, and index in rows · length of its first token. */
  placed: { image: number; at: number }[];
}

function placeImages(rows: readonly ScoreRow[], length: number, config: QwenVLConfig): BatchImages {
  const index = new Map<string, number>();
  const unique: ImageInput[] = [];
  const placed: BatchImages['placed'] = [];
  const unit = config.vision.merge ** 2;
  rows.forEach(({ ids, images }, row) => {
    let i = 0;
    for (const image of images) {
      const known = index.get(image.key) ?? unique.push(image) - 1;
      index.set(image.key, known);
      while (ids[i] !== config.imageToken) i++;
      placed.push({ image: known, at: row * length + i });
      i += (image.grid[0] * image.grid[1] * image.grid[2]) / unit;
    }
  });
  return { unique, placed };
}

/** Inputs that every row has: ids, rotation angles and the mask of text tokens, padded to [rows · length]. */
function tokenInputs(rows: readonly ScoreRow[], length: number, config: QwenVLConfig) {
  const half = config.headDim / 2;
  const tokens = rows.length * length;
  const ids = new Int32Array(tokens);
  const cos = new Float32Array(tokens * half);
  const sin = new Float32Array(tokens * half);
  const textMask = new Float32Array(tokens).fill(1);
  rows.forEach((row, r) => {
    const { positions } = mropePositions({
      ids: row.ids,
      grids: row.images.map(({ grid }) => grid),
      config,
      ...(row.jumps && { jumps: row.jumps }),
    });
    const tables = ropeTables(config, positions);
    cos.set(tables.cos, r * length * half);
    sin.set(tables.sin, r * length * half);
    ids.set(row.ids, r * length);
    row.ids.forEach((id, i) => {
      if (id === config.imageToken) textMask[r * length + i] = 0;
    });
  });
  return {
    textMask: float(textMask, [tokens, 1]),
    inputs: { ids: int(ids, [tokens]), cos: float(cos, [tokens, half]), sin: float(sin, [tokens, half]) },
  };
}

export function createScorer(options: {
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
  const { engine, parameters, config, vision, chunk = 64, lengthBucket = 64 } = options;
  const { hidden, vocab } = config;
  const programs = createProgramCache({ engine, parameters, size: options.programs ?? 16 });

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
    const scored = scoredTokens(rows);
    const count = scored.row.length;
    if (count === 0) return scores;
    const length = roundUp(
      rows.reduce((most, { ids }) => Math.max(most, ids.length), 1),
      lengthBucket,
    );
    const tokens = rows.length * length;
    const { inputs, textMask } = tokenInputs(rows, length, config);
    const images = placeImages(rows, length, config);
    const shape: ScoreShape = {
      rows: rows.length,
      length,
      scored: scoredBucket(count),
      chunk,
      images: images.placed.length > 0,
      ban: ban.length > 0,
      entropy,
      backward: dLogProbs !== undefined,
    };
    const at = new Int32Array(shape.scored);
    const targets = new Int32Array(shape.scored);
    for (let n = 0; n < count; n++) {
      at[n] = scored.row[n]! * length + scored.token[n]! - 1;
      targets[n] = rows[scored.row[n]!]!.ids[scored.token[n]!]!;
    }
    const all: Record<string, Tensor> = {
      ...inputs,
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
      const features = await vision.encode(images.unique);
      const data = new Float32Array(tokens * hidden);
      for (const { image, at: first } of images.placed) data.set(features[image]!, first * hidden);
      all.features = float(data, [tokens, hidden]);
      all.text_mask = textMask;
    }
    const cotangent = (given: readonly Float32Array[]): Tensor => {
      const data = new Float32Array(shape.scored);
      for (let n = 0; n < count; n++) data[n] = given[scored.row[n]!]![scored.token[n]!]!;
      return float(data, [shape.scored]);
    };
    if (dLogProbs) all.d_log_probs = cotangent(dLogProbs);
    if (dLogProbs && entropy)
      all.d_entropy = dEntropy ? cotangent(dEntropy) : float(new Float32Array(shape.scored), [shape.scored]);

    const out = await programs.run(`score ${JSON.stringify(shape)}`, () => scoreGraph(config, shape), all);
    const { log_probs: logProbs, entropy: entropies, d_features: dFeatures, ...gradients } = out;
    for (let n = 0; n < count; n++) {
      scores.logProbs[scored.row[n]!]![scored.token[n]!] = logProbs!.data[n]!;
      if (entropies) scores.entropy[scored.row[n]!]![scored.token[n]!] = entropies.data[n]!;
    }
    for (const [name, gradient] of Object.entries(gradients))
      parameters.gradients.accumulate(name, gradient.data as Float32Array);
    if (dFeatures) await backwardImages(images, dFeatures.data as Float32Array);
    return scores;
  };

  /** Images that appear several times get the sum of their cotangents; one pass of the tower for all. */
  const backwardImages = async ({ unique, placed }: BatchImages, dFeatures: Float32Array): Promise<void> => {
    const unit = config.vision.merge ** 2;
    const sums = unique.map(({ grid: [t, h, w] }) => new Float32Array(((t * h * w) / unit) * hidden));
    for (const { image, at } of placed) {
      const sum = sums[image]!;
      const from = at * hidden;
      for (let i = 0; i < sum.length; i++) sum[i]! += dFeatures[from + i]!;
    }
    await vision.backward(unique, sums);
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
