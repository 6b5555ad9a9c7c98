import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Orientation, orient, parseDisplayMatrix, rotationOf, swapsSides, UPRIGHT } from './orientation.ts';

const matrix = (...[a, b, c, d]: number[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(36));
  for (const [at, value] of [a, b, 0, c, d].entries()) view.setInt32(4 * at, Math.round(65536 * value!), true);
  return new Uint8Array(view.buffer);
};

/** The four turns and the four mirrored ones. */
const ALL: Orientation[] = [
  UPRIGHT,
  [0, 1, -1, 0],
  [-1, 0, 0, -1],
  [0, -1, 1, 0],
  [-1, 0, 0, 1],
  [1, 0, 0, -1],
  [0, 1, 1, 0],
  [0, -1, -1, 0],
];

test('a display matrix is read back, with its degrees clockwise', () => {
  for (const orientation of ALL) expect(parseDisplayMatrix('v.mp4', matrix(...orientation))).toEqual(orientation);
  expect(ALL.slice(0, 4).map(rotationOf)).toEqual([0, 90, 180, 270]);
  const half = Math.SQRT1_2;
  for (const bad of [matrix(half, half, -half, half), matrix(0, 0, 0, 0), matrix(1, 0, 1, 0)])
    expect(() => parseDisplayMatrix('v.mp4', bad)).toThrow(InputError);
});

test('a quarter turn clockwise brings the lower left corner to the upper left', () => {
  // 2 x 1 pixels: red at the left, green at the right; turned, red is above green.
  const turned = orient(new Uint8Array([255, 0, 0, 0, 255, 0]), { width: 2, height: 1 }, [0, 1, -1, 0]);
  expect([...turned]).toEqual([255, 0, 0, 0, 255, 0]);
  // 1 x 2 pixels: red above green; turned, green is left of red.
  const other = orient(new Uint8Array([255, 0, 0, 0, 255, 0]), { width: 1, height: 2 }, [0, 1, -1, 0]);
  expect([...other]).toEqual([0, 255, 0, 255, 0, 0]);
});

test('an orientation and its inverse cancel, whatever the size', () => {
  const sides = fc.tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 7 }));
  fc.assert(
    fc.property(sides, fc.constantFrom(...ALL), ([width, height], orientation) => {
      const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => i);
      const turned = orient(pixels, { width, height }, orientation);
      const size = swapsSides(orientation) ? { width: height, height: width } : { width, height };
      const [a, b, c, d] = orientation;
      // The matrices are orthogonal: the inverse is the transpose.
      expect(orient(turned, size, [a, c, b, d])).toEqual(pixels);
    }),
  );
});
