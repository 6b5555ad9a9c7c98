/** @file Frame numbers burnt into the picture as 20 bars, to check that the frame that arrived is the frame that was meant. */
import type { RgbFrame, SceneBox } from './types.ts';

const BITS = 20;

/** White bars for the ones of each frame's number, lowest bit at the left, over the top eighth of a dark picture. */
export function indexCodeBoxes({
  width,
  height,
  frames,
}: {
  width: number;
  height: number;
  frames: number;
}): SceneBox[] {
  const boxes: SceneBox[] = [];
  const bar = width / BITS;
  for (let bit = 0; bit < BITS; bit++) {
    const place = { x: Math.round(bit * bar), y: 0, w: Math.round((bit + 1) * bar) - Math.round(bit * bar) };
    for (let start = 2 ** bit; start < frames; start += 2 ** (bit + 1))
      boxes.push({ ...place, h: Math.ceil(height / 8), color: [255, 255, 255], start, end: start + 2 ** bit - 1 });
  }
  return boxes;
}

/** The number burnt into a frame at any size of 40 pixels in width or more. */
export function readIndexCode({ width, height, data }: RgbFrame): number {
  const y = Math.floor(height / 16);
  let value = 0;
  for (let bit = 0; bit < BITS; bit++) {
    const at = 3 * (y * width + Math.floor(((bit + 0.5) * width) / BITS));
    if (data[at]! + data[at + 1]! + data[at + 2]! > 384) value += 2 ** bit;
  }
  return value;
}
