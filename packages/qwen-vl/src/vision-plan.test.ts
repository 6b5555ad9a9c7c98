import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config.ts';
import { nestedJson } from './tiny-config.ts';
import { batchSizes } from './vision-encoder.ts';
import { visionPlan } from './vision-plan.ts';

// Windows of 8 / 2 / 2 = 2 x 2 tokens.
const config = parseConfig(nestedJson());

describe('visionPlan', () => {
  it('puts windows of equal size next to each other', () => {
    const plan = visionPlan(config, [1, 6, 6]);
    expect([...plan.order]).toEqual([0, 1, 3, 4, 2, 5, 6, 7, 8]);
    expect(plan.segments).toEqual([
      { windows: 1, size: 16 },
      { windows: 2, size: 8 },
      { windows: 1, size: 4 },
    ]);
    // The first token's four patches, then those of the token to its right.
    expect([...plan.rows.subarray(0, 8)]).toEqual([0, 0, 1, 1, 0, 0, 1, 1]);
    expect([...plan.columns.subarray(0, 8)]).toEqual([0, 1, 0, 1, 2, 3, 2, 3]);
  });

  it('is a permutation with its inverse, windows cover every patch', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 7 }), (h, w) => {
        const plan = visionPlan(config, [1, 2 * h, 2 * w]);
        expect([...plan.order].sort((a, b) => a - b)).toEqual([...plan.order.keys()]);
        expect([...plan.inverse].map((at) => plan.order[at])).toEqual([...plan.order.keys()]);
        expect(plan.segments.reduce((sum, s) => sum + s.windows * s.size, 0)).toBe(plan.patches);
        expect(plan.identity).toBe(h <= 2 && w <= 2 ? true : plan.order.every((t, i) => t === i));
      }),
    );
  });
});

describe('batchSizes', () => {
  it('covers n with few sizes and at most a quarter of blanks', () => {
    expect(batchSizes(7, 64)).toEqual([8]);
    expect(batchSizes(5, 64)).toEqual([4, 1]);
    expect(batchSizes(130, 64)).toEqual([64, 64, 2]);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.constantFrom(1, 2, 5, 64), (n, most) => {
        const sizes = batchSizes(n, most);
        const total = sizes.reduce((a, b) => a + b, 0);
        expect(total).toBeGreaterThanOrEqual(n);
        expect(total).toBeLessThanOrEqual((4 * n) / 3);
        expect(total - sizes.at(-1)!).toBeLessThan(n);
        expect(sizes.every((s) => s <= most && Number.isInteger(Math.log2(s)))).toBe(true);
      }),
    );
  });
});
