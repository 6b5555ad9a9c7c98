import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config.ts';
import { type Grid, imageTokens, mropePositions, ropeTables } from './positions.ts';
import { nestedJson } from './tiny-config.ts';

const config = parseConfig(nestedJson());
const pads = (grid: Grid) => Array<number>(imageTokens(grid, config)).fill(config.imageToken);

/** Pieces of a sequence: text, then an image. */
const pieces = fc.array(
  fc.record({
    text: fc.array(fc.nat({ max: 35 }), { maxLength: 5 }),
    grid: fc
      .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 }))
      .map(([h, w]): Grid => [1, 2 * h, 2 * w]),
  }),
  { minLength: 1, maxLength: 4 },
);

describe('mropePositions', () => {
  it('counts an image from one offset on two axes, and goes on after its larger side', () => {
    const grid: Grid = [1, 4, 6];
    const { positions, next } = mropePositions({ ids: [1, 2, ...pads(grid), 3], grids: [grid], config });
    expect([...positions]).toEqual(
      [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
      ].flat(),
    );
    expect(next).toBe(6);
  });

  it('piece by piece equals the whole', () => {
    fc.assert(
      fc.property(pieces, (parts) => {
        const all = parts.map(({ text, grid }) => ({ ids: [...text, ...pads(grid)], grid }));
        const ids = all.flatMap((part) => part.ids);
        const whole = mropePositions({ ids, grids: all.map(({ grid }) => grid), config });
        const axes: number[][] = [[], [], []];
        let start = 0;
        for (const part of all) {
          const { positions, next } = mropePositions({ ids: part.ids, grids: [part.grid], config, start });
          const length = part.ids.length;
          for (const [axis, out] of axes.entries()) out.push(...positions.subarray(axis * length, (axis + 1) * length));
          start = next;
        }
        expect(axes.flat()).toEqual([...whole.positions]);
        expect(start).toBe(whole.next);
      }),
    );
  });

  it('jumps move everything from a token on', () => {
    const grid: Grid = [1, 2, 2];
    const ids = [1, ...pads(grid), 2, 3];
    const { positions, next } = mropePositions({ ids, grids: [grid], config, jumps: [{ index: 2, by: 10 }] });
    expect([...positions.subarray(0, 4)]).toEqual([0, 1, 12, 13]);
    expect(next).toBe(14);
  });

  it.each<[string, number[], Grid[], RegExp]>([
    ['too few pads', [36, 1], [[1, 2, 4]], /token 1: image 0 has 2 tokens, but only 1 pads/],
    ['a pad without image', [1, 36], [], /token 1: an image pad, but only 0 images/],
    ['an image without pads', [1], [[1, 2, 2]], /1 images were given, but the tokens hold 0/],
    ['a video pad', [37], [], /video pads are not supported/],
    ['an odd grid', [36], [[1, 3, 2]], /sides that are multiples of 2/],
    ['two frames', [36], [[2, 2, 2]], /t = 1/],
  ])('refuses %s', (_, ids, grids, message) => {
    expect(() => mropePositions({ ids, grids, config })).toThrow(InputError);
    expect(() => mropePositions({ ids, grids, config })).toThrow(message);
  });

  it('refuses a jump inside an image', () => {
    const grids: Grid[] = [[1, 2, 4]];
    expect(() => mropePositions({ ids: [36, 36], grids, config, jumps: [{ index: 1, by: 1 }] })).toThrow(
      /inside an image/,
    );
  });
});

describe('ropeTables', () => {
  it('turns each frequency by the position of its section', () => {
    const { cos, sin } = ropeTables(config, Int32Array.of(700, 3, 5));
    const positions = [700, 3, 5, 5];
    positions.forEach((p, j) => {
      const angle = p / 10_000 ** (j / 4);
      expect(cos[j]).toBeCloseTo(Math.cos(angle), 4);
      expect(sin[j]).toBeCloseTo(Math.sin(angle), 4);
    });
  });
});
