import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseRegime, durationOf, firstLook, fitSize, REFERENCE_REGIMES, zoomIndices } from './regimes.ts';

describe('chooseRegime', () => {
  it('takes short up to the limit and when nothing is known', () => {
    const { short, long } = REFERENCE_REGIMES;
    expect(chooseRegime({ durationSeconds: 300 })).toEqual(short);
    expect(chooseRegime({ durationSeconds: 300.04 })).toEqual(long);
    expect(chooseRegime({})).toEqual(short);
    expect(chooseRegime({ durationSeconds: durationOf({ fps: 0, totalFrames: 9000 }) })).toEqual(short);
  });
  it('takes other numbers from the configuration', () => {
    const tiny = { frames: 6, maxWidth: 112, maxHeight: 56 };
    const regimes = { limitSeconds: 10, short: tiny, long: { ...tiny, frames: 10 } };
    expect(chooseRegime({ durationSeconds: 11, regimes }).frames).toBe(10);
    expect(chooseRegime({ durationSeconds: 9, regimes }).frames).toBe(6);
  });
});

describe('fitSize', () => {
  it('never enlarges, and stays within the limits', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 5000 }), (width, height) => {
        const size = fitSize({ width, height }, REFERENCE_REGIMES.long);
        expect(size.width).toBeLessThanOrEqual(Math.min(width, 448));
        expect(size.height).toBeLessThanOrEqual(Math.min(height, 252));
      }),
    );
    expect(fitSize({ width: 1, height: 5000 }, REFERENCE_REGIMES.short)).toEqual({ width: 0, height: 360 });
  });
});

describe('indices', () => {
  it('are floor(k (T-1) / (n-1)) at the first look', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 60_000 }), fc.constantFrom(8, 12), (total, n) => {
        const exact = Array.from({ length: n }, (_, k) => Math.floor((k * (total - 1)) / (n - 1)));
        expect(firstLook(total, n)).toEqual(exact);
      }),
    );
    expect(firstLook(100, 1)).toEqual([0]);
  });
  it('lie strictly between the two frames of a closer look, sorted and unique', () => {
    fc.assert(
      fc.property(fc.nat(5000), fc.integer({ min: 13, max: 5000 }), (a, span) => {
        const indices = zoomIndices(a, a + span, 12);
        expect(indices[0]).toBe(a + 1);
        expect(indices.at(-1)).toBe(a + span - 1);
        expect(indices).toEqual([...new Set(indices)].sort((x, y) => x - y));
      }),
    );
  });
});
