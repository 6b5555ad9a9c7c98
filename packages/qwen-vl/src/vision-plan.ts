/** @file How the patches of one image are ordered and grouped for the vision tower. */
import type { QwenVLConfig } from './config.ts';
import { type Grid, imageTokens } from './positions.ts';

export interface VisionPlan {
  patches: number;
  /** Merged tokens (merge² patches each). */
  tokens: number;
  /** Position k holds token order[k] of the image (row-major over merge blocks). */
  order: Int32Array;
  /** Where each token of the image stands in `order`. */
  inverse: Int32Array;
  /** `order` is 0, 1, 2, … */
  identity: boolean;
  /** Consecutive windows of equal size: `windows` of `size` patches each, in order. */
  segments: { windows: number; size: number }[];
  /** Row and column of each patch, in the tower's order. */
  rows: Int32Array;
  columns: Int32Array;
}

/**
 * Windows are tiles of (window / merge / patch)² tokens, cut at the image's edge. Tiles of equal size are put next to each
 * other, so that each size is one batched attention; within an image neither the result of full attention nor that of
 * window attention depends on the order of the tiles.
 */
export function visionPlan(config: QwenVLConfig, grid: Grid): VisionPlan {
  const { merge, patch, window } = config.vision;
  const tokens = imageTokens(grid, config);
  const [height, width] = [grid[1] / merge, grid[2] / merge];
  const side = Math.max(1, Math.floor(window / merge / patch));
  const tiles: number[][] = [];
  for (let top = 0; top < height; top += side)
    for (let left = 0; left < width; left += side) {
      const tile: number[] = [];
      for (let y = top; y < Math.min(top + side, height); y++)
        for (let x = left; x < Math.min(left + side, width); x++) tile.push(y * width + x);
      tiles.push(tile);
    }
  tiles.sort((a, b) => b.length - a.length);
  const unit = merge * merge;
  const segments: { windows: number; size: number }[] = [];
  for (const { length } of tiles) {
    const last = segments.at(-1);
    if (last?.size === length * unit) last.windows++;
    else segments.push({ windows: 1, size: length * unit });
  }
  const order = Int32Array.from(tiles.flat());
  const inverse = new Int32Array(tokens);
  order.forEach((token, at) => {
    inverse[token] = at;
  });
  const rows = new Int32Array(tokens * unit);
  const columns = new Int32Array(tokens * unit);
  order.forEach((token, at) => {
    for (let j = 0; j < unit; j++) {
      rows[at * unit + j] = Math.floor(token / width) * merge + Math.floor(j / merge);
      columns[at * unit + j] = (token % width) * merge + (j % merge);
    }
  });
  const identity = order.every((token, at) => token === at);
  return { patches: tokens * unit, tokens, order, inverse, identity, segments, rows, columns };
}
