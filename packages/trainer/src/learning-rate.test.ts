import { describe, expect, it } from 'vitest';
import { learningRate } from './learning-rate.ts';

const base = { lr: 1, warmupSteps: 0, style: 'constant' as const, totalSteps: 10, minLrRatio: 0, numCycles: 0.5 };

describe('learning rate', () => {
  it('is constant from the first update on', () => {
    expect([0, 1, 9].map((step) => learningRate(step, base))).toEqual([1, 1, 1]);
  });
  it('warms up linearly and never starts at 0', () => {
    expect([0, 1, 2, 3, 4].map((step) => learningRate(step, { ...base, warmupSteps: 4 }))).toEqual([
      0.25, 0.5, 0.75, 1, 1,
    ]);
  });
  it('falls as half a cosine to the smallest rate', () => {
    const rates = [0, 5, 10].map((step) => learningRate(step, { ...base, style: 'cosine', minLrRatio: 0.1 }));
    expect(rates[0]).toBeCloseTo(1);
    expect(rates[1]).toBeCloseTo(0.55);
    expect(rates[2]).toBeCloseTo(0.1);
  });
});
