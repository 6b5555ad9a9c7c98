import fc from 'fast-check';
import { expect, it } from 'vitest';
import { KvCache } from './kv-cache.ts';

const shape = { slots: 3, layers: 2, kvHeads: 2, headDim: 2 };
const BUCKET = 4;

/** new_kv of one row whose values name array, head, token and slot. */
const rowsOf = (slot: number, start: number, count: number, length: number): Float32Array => {
  const out = new Float32Array(2 * shape.layers * shape.kvHeads * length * shape.headDim);
  let at = 0;
  for (let i = 0; i < 2 * shape.layers; i++)
    for (let head = 0; head < shape.kvHeads; head++)
      for (let token = 0; token < length; token++)
        for (let d = 0; d < shape.headDim; d++) out[at++] = token < count ? value(i, head, slot, start + token, d) : -1;
  return out;
};
const value = (i: number, head: number, slot: number, token: number, d: number): number =>
  i * 10_000 + head * 5_000 + slot * 1_000 + token * 10 + d;

it('holds every sequence whatever order they grow and move in, padded to the bucket or to its own', () => {
  const action = fc.record({
    slot: fc.nat(2),
    count: fc.integer({ min: 1, max: 6 }),
    clear: fc.nat(5).map((n) => n === 0),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 20 }), (actions) => {
      const cache = new KvCache(shape, BUCKET);
      const lengths = [0, 0, 0];
      for (const { slot, count, clear } of actions) {
        if (clear) {
          cache.clear(slot);
          lengths[slot] = 0;
        }
        const start = lengths[slot]!;
        cache.reserve(start + count);
        cache.append(slot, rowsOf(slot, start, count, count + 1), { row: 0, rows: 1, length: count + 1, count });
        lengths[slot] = start + count;
      }
      for (const [slot, length] of lengths.entries()) {
        expect(cache.length(slot)).toBe(length);
        const own = cache.sequence(slot);
        if (cache.capacity > 0) expect(own.past).toBe(Math.max(BUCKET, Math.ceil(length / BUCKET) * BUCKET));
        for (let token = 0; token < cache.capacity; token++)
          expect(cache.mask[slot * cache.capacity + token]).toBe(token < length ? 0 : Math.fround(-1e30));
        for (let layer = 0; layer < shape.layers; layer++)
          for (let head = 0; head < shape.kvHeads; head++)
            for (let token = 0; token < length; token++)
              for (const [part, kind] of (['k', 'v'] as const).entries()) {
                const expected = value(2 * layer + part, head, slot, token, 1);
                const all = cache.layer(layer)[kind];
                expect(all[((slot * shape.kvHeads + head) * cache.capacity + token) * shape.headDim + 1]).toBe(
                  expected,
                );
                expect(own.layers[layer]![kind][(head * own.past + token) * shape.headDim + 1]).toBe(expected);
              }
      }
    }),
    { numRuns: 60 },
  );
});

it('shrinks when it is empty, and refuses tokens that it has no room for', () => {
  const cache = new KvCache(shape, BUCKET);
  cache.reserve(9);
  expect(cache.capacity).toBe(12);
  cache.append(1, rowsOf(1, 0, 2, 2), { row: 0, rows: 1, length: 2, count: 2 });
  cache.reserve(3);
  expect(cache.capacity).toBe(12);
  cache.clear(1);
  cache.reserve(3);
  expect(cache.capacity).toBe(4);
  expect(() => cache.append(0, rowsOf(0, 0, 5, 5), { row: 0, rows: 1, length: 5, count: 5 })).toThrow(
    /0 \+ 5 tokens in a capacity of 4/,
  );
});

it('grows again within the memory that it had, with zeros behind every sequence', () => {
  const cache = new KvCache(shape, BUCKET);
  const fill = (slot: number, start: number, count: number): void =>
    cache.append(slot, rowsOf(slot, start, count, count), { row: 0, rows: 1, length: count, count });
  cache.reserve(12);
  for (let slot = 0; slot < shape.slots; slot++) fill(slot, 0, 12);
  const { buffer } = cache.layer(1).v;
  for (let slot = 0; slot < shape.slots; slot++) cache.clear(slot);
  const lengths = [4, 1, 3];
  for (const capacity of [4, 8, 12]) {
    cache.reserve(capacity);
    if (capacity === 4) for (const [slot, length] of lengths.entries()) fill(slot, 0, length);
    expect(cache.capacity).toBe(capacity);
    expect(cache.layer(1).v.buffer).toBe(buffer);
    const expected = lengths.flatMap((length, slot) =>
      [0, 1].flatMap((head) =>
        Array.from({ length: capacity }, (_, token) =>
          [0, 1].map((d) => (token < length ? value(3, head, slot, token, d) : 0)),
        ).flat(),
      ),
    );
    expect(Array.from(cache.layer(1).v)).toEqual(expected);
  }
});
