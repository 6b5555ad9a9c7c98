/** @file mRoPE: three position ids a token (temporal, height, width) and the tables of angles they make. */
import { InputError } from '@frame-thinker/core';
import type { QwenVLConfig } from './config.ts';

/** [t, h, w] of an image in patches (before merging). */
export type Grid = readonly [number, number, number];

/** Positions skip `by` before token `index` (curricula: as if missing frames had been there). */
export interface PositionJump {
  index: number;
  by: number;
}

export interface MropePositions {
  /** [3, S] row-major: temporal, height, width. */
  positions: Int32Array;
  /** The position of the next text token; pass it as `start` to go on incrementally. */
  next: number;
}

/** Tokens of an image after merging. */
export function imageTokens([t, h, w]: Grid, config: QwenVLConfig): number {
  const { merge } = config.vision;
  if (t !== 1 || h % merge !== 0 || w % merge !== 0 || h === 0 || w === 0)
    throw new InputError(`grid [${t}, ${h}, ${w}]: an image has t = 1 and sides that are multiples of ${merge}`);
  return (h / merge) * (w / merge);
}

/**
 * Position ids of a sequence, or of what follows `start` (a piece begins and ends between images; `jumps` count from the
 * piece's first token). Text: one position a token on all three axes. An image: its temporal index is the offset, height and
 * width count from the same offset, and text goes on after the largest.
 * @param grids one of each image, in order of appearance
 * @throws InputError when pads and grids do not match.
 */
export function mropePositions(options: {
  ids: ArrayLike<number>;
  grids: readonly Grid[];
  config: QwenVLConfig;
  jumps?: readonly PositionJump[];
  start?: number;
}): MropePositions {
  const { ids, grids, config, jumps = [], start = 0 } = options;
  const length = ids.length;
  const positions = new Int32Array(3 * length);
  const jumpAt = new Map<number, number>();
  for (const { index, by } of jumps) jumpAt.set(index, (jumpAt.get(index) ?? 0) + by);
  let offset = start;
  let image = 0;
  let i = 0;
  while (i < length) {
    offset += jumpAt.get(i) ?? 0;
    const id = ids[i]!;
    if (id === config.videoToken)
      throw new InputError(`token ${i}: video pads are not supported; give a video as images, one a frame`);
    if (id !== config.imageToken) {
      positions[i] = positions[length + i] = positions[2 * length + i] = offset++;
      i++;
      continue;
    }
    const grid = grids[image];
    if (!grid) throw new InputError(`token ${i}: an image pad, but only ${grids.length} images were given`);
    const count = imageTokens(grid, config);
    const width = grid[2] / config.vision.merge;
    for (let j = 0; j < count; j++, i++) {
      if (ids[i] !== config.imageToken)
        throw new InputError(`token ${i}: image ${image} has ${count} tokens, but only ${j} pads stand there`);
      if (j > 0 && jumpAt.has(i)) throw new InputError(`token ${i}: a position jump inside an image`);
      positions[i] = offset;
      positions[length + i] = offset + Math.floor(j / width);
      positions[2 * length + i] = offset + (j % width);
    }
    offset += Math.max(count / width, width);
    image++;
  }
  if (image !== grids.length) throw new InputError(`${grids.length} images were given, but the tokens hold ${image}`);
  return { positions, next: offset };
}

/** cos and sin of position · theta^(−2j / headDim), a row of headDim / 2 a position; grown on demand. */
interface AngleTable {
  rows: number;
  cos: Float32Array;
  sin: Float32Array;
}
const angleTables = new WeakMap<QwenVLConfig, AngleTable>();

function angles(config: QwenVLConfig, rows: number): AngleTable {
  const known = angleTables.get(config);
  if (known && known.rows >= rows) return known;
  const half = config.headDim / 2;
  const size = Math.max(rows, 2 * (known?.rows ?? 256));
  const table = { rows: size, cos: new Float32Array(size * half), sin: new Float32Array(size * half) };
  for (let j = 0; j < half; j++) {
    const frequency = Math.fround(1 / config.ropeTheta ** (j / half));
    for (let p = 0; p < size; p++) {
      const angle = Math.fround(p * frequency);
      table.cos[p * half + j] = Math.cos(angle);
      table.sin[p * half + j] = Math.sin(angle);
    }
  }
  angleTables.set(config, table);
  return table;
}

/** cos and sin, each [S, headDim / 2]: frequency j takes the position of its mRoPE section. `positions`: [3, S], >= 0. */
export function ropeTables(config: QwenVLConfig, positions: Int32Array): { cos: Float32Array; sin: Float32Array } {
  const length = positions.length / 3;
  const half = config.headDim / 2;
  const table = angles(config, positions.reduce((a, b) => Math.max(a, b), 0) + 1);
  const cos = new Float32Array(length * half);
  const sin = new Float32Array(length * half);
  let first = 0;
  config.mropeSection.forEach((size, axis) => {
    for (let i = 0; i < length; i++) {
      const from = positions[axis * length + i]! * half;
      for (let j = first; j < first + size; j++) {
        cos[i * half + j] = table.cos[from + j]!;
        sin[i * half + j] = table.sin[from + j]!;
      }
    }
    first += size;
  });
  return { cos, sin };
}
