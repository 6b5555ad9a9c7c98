import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  balancedPartitions,
  greedyPartition,
  groupBalancedPartitions,
  karmarkarKarp,
  microBatches,
  workloadOf,
} from './balancing.ts';

const sizes = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 40 });
const sorted = (parts: readonly (readonly number[])[]) => parts.flat().sort((a, b) => a - b);
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('partitions', () => {
  it('hold every row once, sorted, none empty', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 8 }), (list, k) => {
        fc.pre(list.length >= k);
        const parts = balancedPartitions(list, k, false);
        expect(parts.length).toBe(k);
        expect(sorted(parts)).toEqual(upTo(list.length));
        for (const part of parts) expect(part).toEqual([...part].sort((a, b) => a - b));
      }),
    );
  });
  it('differ by at most the largest row', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 5 }), (list, k) => {
        const sums = karmarkarKarp(list, k, false).map((part) => part.reduce((s, i) => s + list[i]!, 0));
        expect(Math.max(...sums) - Math.min(...sums)).toBeLessThanOrEqual(Math.max(...list));
      }),
    );
  });
  it('have equal sizes when asked', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 12, maxLength: 12 }), (list) => {
        for (const parts of [karmarkarKarp(list, 4, true), greedyPartition(list, 4, true)]) {
          expect(sorted(parts)).toEqual(upTo(12));
          for (const part of parts) expect(part.length).toBe(3);
        }
      }),
    );
    expect(() => karmarkarKarp([1, 2, 3], 2, true)).toThrow('2 does not divide it');
    expect(() => balancedPartitions([1], 2, false)).toThrow('too few rows');
  });
  it('greedy takes rows in order, the first part on a tie', () => {
    expect(greedyPartition([5, 3, 3, 1], 2, false)).toEqual([
      [0, 3],
      [1, 2],
    ]);
  });
  it('keep the rows of a group together', () => {
    const parts = groupBalancedPartitions([10, 20, 30, 40, 5, 5, 90, 1], ['a', 'a', 'b', 'b', 'c', 'c', 'd', 'd'], 2);
    expect(sorted(parts)).toEqual(upTo(8));
    for (const part of parts) {
      expect(part.length).toBe(4);
      for (const i of part) expect(part).toContain(i % 2 ? i - 1 : i + 1);
    }
    expect(() => groupBalancedPartitions([1, 2], ['a', 'a'], 2)).toThrow('too few rows');
  });
});

describe('micro-batches', () => {
  it('are as many as the tokens need, small at both ends', () => {
    const tokens = [700, 100, 400, 300, 600, 200, 500, 800];
    const parts = microBatches(tokens, { maxTokenLen: 1000 });
    expect(parts.length).toBe(4);
    expect(sorted(parts)).toEqual(upTo(8));
    const work = parts.map((part) => part.reduce((s, i) => s + workloadOf(tokens[i]!), 0));
    expect(work[1]).toBe(Math.max(...work));
  });
  it('obey the counts asked for', () => {
    expect(microBatches([5, 5, 5, 5], { maxTokenLen: 100, minNumMicroBatch: 3 }).length).toBe(3);
    expect(microBatches([5, 5, 5, 5], { maxTokenLen: 10, numBatchesDividedBy: 4 }).length).toBe(4);
    expect(() => microBatches([5, 50], { maxTokenLen: 20 })).toThrow('a row has 50');
    expect(() => microBatches([5, 5], { maxTokenLen: 20, minNumMicroBatch: 3 })).toThrow('there are only 2 rows');
  });
});
