/** @file How the rows of a batch become the tokens of one score graph: shared beginning, padding, images, scored tokens. */
import { InputError } from '@frame-thinker/core';
import type { Tensor } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { imageTokens, mropePositions, type PositionJump, ropeTables } from './positions.ts';
import type { ImageInput } from './vision-encoder.ts';

export interface ScoreRow {
  ids: Int32Array;
  /** In order of appearance. */
  images: readonly ImageInput[];
  jumps?: readonly PositionJump[];
  /** 1 on tokens whose log-prob is wanted (default: all but the first). The others get 0. Same length as ids. */
  scored?: Uint8Array;
}

/** A row's tokens one by one. */
interface RowTokens {
  ids: Int32Array;
  /** [3, length] */
  positions: Int32Array;
  /** Index into the batch's images, −1 on text. */
  image: Int32Array;
  /** Which of its image's tokens it is. */
  part: Int32Array;
}

export interface ScoreLayout {
  /** Tokens in the graph: prefix + rows · length. */
  tokens: number;
  prefix: number;
  length: number;
  /** The batch's images, each key once. */
  images: ImageInput[];
  /** Of each graph token, as in RowTokens; padding is text. */
  image: Int32Array;
  part: Int32Array;
  /** The scored tokens: their rows, indices in the row, and the graph token before each. */
  scored: { row: number; token: number; at: number }[];
  inputs: { ids: Tensor; cos: Tensor; sin: Tensor };
}

export const float = (data: Float32Array, shape: readonly number[]): Tensor => ({ dtype: 'float32', shape, data });
export const int = (data: Int32Array, shape: readonly number[]): Tensor => ({ dtype: 'int32', shape, data });

function rowTokens(row: ScoreRow, index: ReadonlyMap<string, number>, config: QwenVLConfig): RowTokens {
  const { ids, images, jumps } = row;
  const grids = images.map(({ grid }) => grid);
  const { positions } = mropePositions({ ids, grids, config, ...(jumps && { jumps }) });
  const image = new Int32Array(ids.length).fill(-1);
  const part = new Int32Array(ids.length);
  let i = 0;
  for (const { key, grid } of images) {
    while (ids[i] !== config.imageToken) i++;
    const count = imageTokens(grid, config);
    for (let j = 0; j < count; j++, i++) {
      image[i] = index.get(key)!;
      part[i] = j;
    }
  }
  return { ids, positions, image, part };
}

/** How many tokens all rows have in common from the start: ids, positions and images. */
function commonPrefix(rows: readonly RowTokens[]): number {
  const [first, ...others] = rows;
  if (!first || others.length === 0) return 0;
  const position = ({ positions, ids }: RowTokens, axis: number, i: number) => positions[axis * ids.length + i];
  const same = (row: RowTokens, i: number) =>
    i < row.ids.length &&
    row.ids[i] === first.ids[i] &&
    row.image[i] === first.image[i] &&
    [0, 1, 2].every((axis) => position(row, axis, i) === position(first, axis, i));
  let i = 0;
  while (i < first.ids.length && others.every((row) => same(row, i))) i++;
  return i;
}

const roundUp = (n: number, step: number): number => Math.ceil(n / step) * step;

/**
 * @param prefixBucket the shared beginning is cut down to a multiple of it (Infinity: nothing is shared)
 * @param lengthBucket what remains of the rows is padded to a multiple of it (of a quarter, where it is at most twice it)
 */
export function layOutRows(options: {
  rows: readonly ScoreRow[];
  config: QwenVLConfig;
  prefixBucket: number;
  lengthBucket: number;
}): ScoreLayout {
  const { rows, config, prefixBucket, lengthBucket } = options;
  const images = [...new Map(rows.flatMap((row) => row.images).map((image) => [image.key, image])).values()];
  const index = new Map(images.map(({ key }, i) => [key, i]));
  const all = rows.map((row) => rowTokens(row, index, config));
  const prefix = commonPrefix(all);
  return placeRows(rows, all, {
    images,
    config,
    prefix: prefix - (prefix % prefixBucket),
    lengthBucket,
  });
}

function placeRows(
  rows: readonly ScoreRow[],
  all: readonly RowTokens[],
  options: { images: ImageInput[]; config: QwenVLConfig; prefix: number; lengthBucket: number },
): ScoreLayout {
  const { images, config, prefix, lengthBucket } = options;
  const longest = all.reduce((most, { ids }) => Math.max(most, ids.length - prefix), 1);
  // Short rows cost little memory and few programs, and would be mostly padding.
  const length = roundUp(longest, longest <= 2 * lengthBucket ? Math.ceil(lengthBucket / 4) : lengthBucket);
  const tokens = prefix + rows.length * length;
  const half = config.headDim / 2;
  const ids = new Int32Array(tokens);
  const cos = new Float32Array(tokens * half);
  const sin = new Float32Array(tokens * half);
  const image = new Int32Array(tokens).fill(-1);
  const part = new Int32Array(tokens);
  const scored: ScoreLayout['scored'] = [];
  all.forEach((row, r) => {
    const tables = ropeTables(config, row.positions);
    /** Puts the row's tokens from `from` on at `at`. */
    const put = (from: number, to: number, at: number) => {
      ids.set(row.ids.subarray(from, to), at);
      cos.set(tables.cos.subarray(from * half, to * half), at * half);
      sin.set(tables.sin.subarray(from * half, to * half), at * half);
      image.set(row.image.subarray(from, to), at);
      part.set(row.part.subarray(from, to), at);
    };
    const start = prefix + r * length;
    if (r === 0) put(0, prefix, 0);
    put(prefix, row.ids.length, start);
    const wanted = rows[r]!.scored;
    if (wanted && wanted.length !== row.ids.length)
      throw new InputError(`row ${r}: scored has ${wanted.length} elements, ids ${row.ids.length}`);
    for (let token = 1; token < row.ids.length; token++) {
      if (wanted && !wanted[token]) continue;
      const before = token - 1;
      scored.push({ row: r, token, at: before < prefix ? before : start + before - prefix });
    }
  });
  const inputs = { ids: int(ids, [tokens]), cos: float(cos, [tokens, half]), sin: float(sin, [tokens, half]) };
  return { tokens, prefix, length, images, image, part, scored, inputs };
}

/** Each image's rows [tokens, width] at their places: [layout.tokens, width], zeros elsewhere. */
export function placeFeatures(layout: ScoreLayout, features: readonly Float32Array[], width: number): Float32Array {
  const out = new Float32Array(layout.tokens * width);
  layout.image.forEach((image, token) => {
    if (image < 0) return;
    const from = layout.part[token]! * width;
    out.set(features[image]!.subarray(from, from + width), token * width);
  });
  return out;
}

/** The other way round: each image's rows, summed over its places. */
export function collectFeatures(layout: ScoreLayout, placed: Float32Array, config: QwenVLConfig): Float32Array[] {
  const width = config.hidden;
  const sums = layout.images.map(({ grid }) => new Float32Array(imageTokens(grid, config) * width));
  layout.image.forEach((image, token) => {
    if (image < 0) return;
    const sum = sums[image]!;
    const to = layout.part[token]! * width;
    const from = token * width;
    for (let i = 0; i < width; i++) sum[to + i]! += placed[from + i]!;
  });
  return sums;
}
