import { expect, it } from 'vitest';
import { bootstrapInterval } from './bootstrap.ts';

it('of a share is about 1.96 standard errors wide on either side', () => {
  const values = Array.from({ length: 400 }, (_, i) => (i % 4 === 0 ? 1 : 0));
  const { mean, low, high } = bootstrapInterval(values, 4000);
  const half = 1.96 * Math.sqrt((0.25 * 0.75) / 400);
  expect(mean).toBe(0.25);
  expect(Math.abs(mean - low - half)).toBeLessThan(0.01);
  expect(Math.abs(high - mean - half)).toBeLessThan(0.01);
  expect(bootstrapInterval(values, 4000)).toEqual({ mean, low, high });
});

it('of equal values is a point; of none an error', () => {
  expect(bootstrapInterval([1, 1, 1], 100)).toEqual({ mean: 1, low: 1, high: 1 });
  expect(() => bootstrapInterval([])).toThrow(RangeError);
});
