import { describe, expect, it } from 'vitest';
import { createRng, philox4x32 } from './random.ts';

describe('philox4x32', () => {
  // Known answers of the authors' Random123 library (kat_vectors, philox4x32 10).
  it('gives the reference words', () => {
    expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const ones = 0xffffffff;
    expect(philox4x32([ones, ones, ones, ones], [ones, ones])).toEqual([
      0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
    ]);
    expect(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });
});

describe('createRng', () => {
  it('repeats for the same key and differs between streams and counters', () => {
    const draw = (...args: Parameters<typeof createRng>) => Array.from({ length: 5 }, createRng(...args).uniform);
    expect(draw(1, 'init', 2, 3)).toEqual(draw(1, 'init', 2, 3));
    expect(draw(1, 'init', 2, 3)).not.toEqual(draw(1, 'shuffle', 2, 3));
    expect(draw(1, 'init', 2, 3)).not.toEqual(draw(1, 'init', 3, 2));
  });
  it('has the moments of its distributions', () => {
    const rng = createRng(7, 'init');
    const normals = Array.from({ length: 20_000 }, rng.normal);
    const mean = normals.reduce((a, b) => a + b) / normals.length;
    const variance = normals.reduce((a, b) => a + (b - mean) ** 2, 0) / normals.length;
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
    expect(createRng(1, 'shuffle').shuffled([1, 2, 3, 4]).sort()).toEqual([1, 2, 3, 4]);
  });
});
