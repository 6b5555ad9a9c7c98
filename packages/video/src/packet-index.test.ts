import fc from 'fast-check';
import { expect, test } from 'vitest';
import { splitRuns } from './ffmpeg-decoder.ts';
import { fromRuns, toRuns } from './packet-index.ts';
import { lastAtMost } from './sorted.ts';

const ascending = fc
  .array(fc.integer({ min: -1000, max: 2 ** 40 }), { maxLength: 50 })
  .map((values) => Float64Array.from(values).sort());

test('time stamps survive run-length coding; a constant rate takes two runs', () => {
  fc.assert(
    fc.property(ascending, (values) => {
      expect(fromRuns(toRuns(values))).toEqual(values);
    }),
  );
  expect(toRuns(Float64Array.from({ length: 14400 }, (_, i) => 512 * i))).toEqual([0, 1, 512, 14399]);
});

test('the key frame before a time stamp is the last one that is not after it', () => {
  fc.assert(
    fc.property(ascending, fc.integer({ min: -2000, max: 2 ** 40 }), (values, x) => {
      expect(lastAtMost(values, x)).toBe([...values].findLastIndex((value) => value <= x));
    }),
  );
});

test('runs of the executable keep every index in order and are cut at wide gaps only', () => {
  expect(splitRuns([0, 10, 259, 509, 760])).toEqual([[0, 10, 259], [509], [760]]);
  expect(splitRuns([])).toEqual([]);
});
