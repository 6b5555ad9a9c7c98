import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createQuestionSampler } from './question-sampler.ts';

describe('question sampler', () => {
  it('takes every row at most once in an epoch, in whole batches, in an order that changes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 0, max: 99 }),
        (rows, batchSize, seed) => {
          fc.pre(rows >= batchSize);
          const sampler = createQuestionSampler({ rows, batchSize, seed, shuffle: true });
          for (const epoch of [0, 1]) {
            const steps = Array.from(
              { length: sampler.stepsPerEpoch },
              (_, i) => epoch * sampler.stepsPerEpoch + i + 1,
            );
            const taken = steps.flatMap((step) => sampler.rowsOf(step));
            expect(taken).toHaveLength(sampler.stepsPerEpoch * batchSize);
            expect(new Set(taken).size).toBe(taken.length);
            expect(steps.map((step) => sampler.epochOf(step))).toEqual(steps.map(() => epoch));
          }
        },
      ),
    );
    const sampler = createQuestionSampler({ rows: 40, batchSize: 40, seed: 1, shuffle: true });
    expect(sampler.rowsOf(1)).not.toEqual(sampler.rowsOf(2));
  });

  it('does not depend on the order in which steps are asked for', () => {
    const create = () => createQuestionSampler({ rows: 10, batchSize: 3, seed: 4, shuffle: true });
    const forwards = create();
    const rows = [1, 2, 3, 4, 5, 6].map((step) => forwards.rowsOf(step));
    const backwards = create();
    expect([6, 5, 4, 3, 2, 1].map((step) => backwards.rowsOf(step)).reverse()).toEqual(rows);
  });

  it('keeps the file order without shuffle and refuses a batch larger than the data', () => {
    expect(createQuestionSampler({ rows: 5, batchSize: 2, seed: 1, shuffle: false }).rowsOf(2)).toEqual([2, 3]);
    expect(() => createQuestionSampler({ rows: 5, batchSize: 6, seed: 1, shuffle: false })).toThrow(
      /train_batch_size=6/,
    );
  });
});
