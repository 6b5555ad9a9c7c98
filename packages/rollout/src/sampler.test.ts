import { RunError, type SamplingOptions } from '@frame-thinker/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createScratch, sampleToken } from './sampler.ts';

const plain: SamplingOptions = { temperature: 1, topP: 1, topK: -1, doSample: true };
const logitsOf = fc.array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 4, maxLength: 40 });
const draw = (logits: number[], options: Partial<SamplingOptions>, ban: number[], uniform: number) =>
  sampleToken(Float32Array.from(logits), { ...plain, ...options }, ban, uniform, createScratch(logits.length));
/** Softmax written another way. */
const probabilities = (logits: number[], temperature: number, ban: number[]): number[] => {
  const exact = logits.map((x, i) =>
    ban.includes(i) ? 0 : Math.exp((Math.fround(x) - Math.max(...logits)) / temperature),
  );
  const sum = exact.reduce((a, b) => a + b, 0);
  return exact.map((p) => p / sum);
};

describe('sampleToken', () => {
  it('inverts the CDF in order of ids, and gives the log-prob of the full softmax', () => {
    fc.assert(
      fc.property(
        logitsOf,
        fc.constantFrom(0.5, 0.7, 1, 2),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (logits, temperature, uniform) => {
          const ban = [1];
          const p = probabilities(logits, temperature, ban);
          const { id, logProb } = draw(logits, { temperature }, ban, uniform);
          const below = p.slice(0, id).reduce((a, b) => a + b, 0);
          expect(id).not.toBe(1);
          expect(below).toBeLessThanOrEqual(uniform + 1e-12);
          expect(below + p[id]!).toBeGreaterThan(uniform - 1e-12);
          expect(logProb).toBeCloseTo(Math.log(p[id]!), 9);
        },
      ),
    );
  });

  it('draws ids as often as their probability says', () => {
    const logits = [0, 1, -1, 2];
    const n = 4000;
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) counts[draw(logits, {}, [], (i + 0.5) / n).id]!++;
    probabilities(logits, 1, []).forEach((p, i) => {
      expect(counts[i]! / n).toBeCloseTo(p, 3);
    });
  });

  it('is greedy at temperature 0 and without doSample, ties to the smaller id', () => {
    for (const options of [{ temperature: 0 }, { doSample: false }]) {
      expect(draw([1, 3, 3, 0], options, [], 0.999).id).toBe(1);
      expect(draw([1, 3, 3, 0], options, [1], 0.999).id).toBe(2);
    }
    expect(draw([0, 2], { temperature: 0 }, [], 0).logProb).toBeCloseTo(-Math.log1p(Math.exp(-2)), 12);
  });

  it('keeps only top-k and top-p ids, and the log-prob of the full softmax', () => {
    const logits = [0, 3, 1, 2];
    const p = probabilities(logits, 1, []);
    const ids = (options: Partial<SamplingOptions>) =>
      new Set(Array.from({ length: 200 }, (_, i) => draw(logits, options, [], i / 200).id));
    expect(ids({ topK: 2 })).toEqual(new Set([1, 3]));
    expect(ids({ topP: 0.7 })).toEqual(new Set([1, 3]));
    expect(ids({ topP: 0.01 })).toEqual(new Set([1]));
    expect(ids({ topK: 3, topP: 0.9 })).toEqual(new Set([1, 3]));
    expect(draw(logits, { topK: 2 }, [], 0.99)).toMatchObject({ id: 3, logProb: Math.log(p[3]!) });
  });

  it('refuses logits without a finite maximum', () => {
    expect(() => draw([Number.NaN, Number.NaN], {}, [], 0)).toThrow(RunError);
    expect(() => draw([0, Number.NaN], {}, [], 0)).toThrow(/NaN/);
    expect(() => draw([0, 1], {}, [0, 1], 0)).toThrow(/finite maximum/);
  });
});
