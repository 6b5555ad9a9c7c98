/** @file mRoPE: three position ids a token (temporal, height, width) and the tables of angles they make. */
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

/**
 * Position ids of a sequence, or of what follows `start` (a piece begins and ends between images).
 * @param grids one of each image, in order of appearance
 * @throws InputError when pads and grids do not match.
 */
export function mropePositions(_options: {
  ids: ArrayLike<number>;
  grids: readonly Grid[];
  config: QwenVLConfig;
  jumps?: readonly PositionJump[];
  start?: number;
}): MropePositions {
  throw new Error('not there yet');
}

/** cos and sin, each [S, headDim / 2]: frequency j takes the position of its mRoPE section. `positions`: [3, S]. */
export function ropeTables(_config: QwenVLConfig, _positions: Int32Array): { cos: Float32Array; sin: Float32Array } {
  throw new Error('not there yet');
}

/** Tokens of an image after merging. */
export function imageTokens(_grid: Grid, _config: QwenVLConfig): number {
  throw new Error('not there yet');
}
