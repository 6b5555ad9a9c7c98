/** @file The display matrix: how a decoded picture is turned and mirrored to be shown. */
import { InputError } from '@frame-thinker/core';

/** x' = a x + c y, y' = b x + d y with entries in {-1, 0, 1}, y pointing down. */
export type Orientation = readonly [a: number, b: number, c: number, d: number];

export const UPRIGHT: Orientation = [1, 0, 0, 1];

/**
 * Reads FFmpeg's display matrix: nine little-endian int32, of which [0], [1], [3], [4] are a, b, c, d in 16.16.
 * @throws InputError when the angle is no multiple of 90 degrees.
 */
export function parseDisplayMatrix(path: string, bytes: Uint8Array): Orientation {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const raw = [0, 1, 3, 4].map((i) => view.getInt32(4 * i, true) / 65536);
  const largest = Math.max(...raw.map(Math.abs));
  const [a, b, c, d] = raw.map((value) => (Math.abs(value) > largest / 2 ? Math.sign(value) : 0)) as [
    number,
    number,
    number,
    number,
  ];
  const straight = raw.every((value) => Math.abs(Math.abs(value) - largest) < 0.01 || Math.abs(value) < 0.01);
  if (!straight || largest === 0 || Math.abs(a * d - b * c) !== 1)
    throw new InputError(`${path}: its display matrix turns it by no multiple of 90 degrees; re-encode it upright`);
  return [a, b, c, d];
}

/** Degrees clockwise, mirroring aside. */
export function rotationOf([a, b]: Orientation): 0 | 90 | 180 | 270 {
  if (a === 1) return 0;
  if (b === 1) return 90;
  return a === -1 ? 180 : 270;
}

export const swapsSides = ([a]: Orientation): boolean => a === 0;

/** Turns height x width x 3 pixels; the result has swapped sides when `swapsSides`. */
export function orient(
  pixels: Uint8Array,
  { width, height }: { width: number; height: number },
  orientation: Orientation,
): Uint8Array {
  const [a, b, c, d] = orientation;
  if (a === 1 && d === 1) return pixels;
  const outWidth = swapsSides(orientation) ? height : width;
  const out = new Uint8Array(pixels.length);
  // The picture's corner that lands on a negative coordinate moves back into view.
  const offsetX = (a < 0 ? width - 1 : 0) + (c < 0 ? height - 1 : 0);
  const offsetY = (b < 0 ? width - 1 : 0) + (d < 0 ? height - 1 : 0);
  let from = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++, from += 3) {
      const to = 3 * ((b * x + d * y + offsetY) * outWidth + a * x + c * y + offsetX);
      out[to] = pixels[from]!;
      out[to + 1] = pixels[from + 1]!;
      out[to + 2] = pixels[from + 2]!;
    }
  return out;
}
