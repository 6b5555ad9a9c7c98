import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { asFloat32, fromBfloat16, fromFloat16, sizeOfDtype, tensorOf, toBfloat16, toFloat16, viewAs } from './dtype.ts';

const all16 = Uint16Array.from({ length: 65536 }, (_, i) => i);
const halves = fromFloat16(all16.subarray(0, 0x8000));
const brains = fromBfloat16(all16.subarray(0, 0x8000));
const f32 = (...values: number[]) => Float32Array.from(values);

/** Nearest of all finite values of a format by search, ties to the even bit pattern: slow, and unlike the code. */
function nearest(value: number, decode: (bits: Uint16Array) => Float32Array, overflow: number): number {
  const magnitudes = decode === fromFloat16 ? halves : brains;
  const target = Math.abs(Math.fround(value));
  let low = 0;
  let high = overflow;
  // Magnitudes rise with the bits up to infinity, which stands for the value that would come next.
  const at = (i: number) =>
    i === overflow ? 2 * magnitudes[overflow - 1]! - magnitudes[overflow - 2]! : magnitudes[i]!;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (at(middle) <= target) low = middle;
    else high = middle;
  }
  const below = target - at(low);
  const above = at(high) - target;
  const bits = target >= at(overflow) ? overflow : below < above ? low : below > above ? high : low % 2 ? high : low;
  return bits | (Object.is(value, -0) || value < 0 ? 0x8000 : 0);
}

const float32 = fc.oneof(
  fc.float({ noNaN: true }),
  fc.float({ noNaN: true, min: -70000, max: 70000 }),
  fc.float({ noNaN: true, min: Math.fround(-1e-4), max: Math.fround(1e-4) }),
  // Points halfway between two values of either format.
  fc.tuple(fc.integer({ min: 0, max: 0x7bfe }), fc.constantFrom(fromFloat16, fromBfloat16)).map(([i, decode]) => {
    const [a = 0, b = 0] = decode(Uint16Array.of(i, i + 1));
    return Math.fround((a + b) / 2);
  }),
);

describe('16-bit floats', () => {
  it('come back from float32 bit for bit, all 65536 of them but NaN payloads', () => {
    for (const [encode, decode] of [
      [toBfloat16, fromBfloat16],
      [toFloat16, fromFloat16],
    ] as const) {
      const values = decode(all16);
      const again = encode(values);
      for (let i = 0; i < 65536; i++) {
        if (Number.isNaN(values[i])) expect(decode(again.subarray(i, i + 1))[0]).toBeNaN();
        else if (again[i] !== i) expect(again[i]).toBe(i);
      }
    }
  });

  it('round to the nearest, ties to even', () => {
    fc.assert(
      fc.property(float32, (value) => {
        expect(toFloat16(f32(value))[0]).toBe(nearest(value, fromFloat16, 0x7c00));
        expect(toBfloat16(f32(value))[0]).toBe(nearest(value, fromBfloat16, 0x7f80));
      }),
      { numRuns: 500 },
    );
  });

  it('have the values that others give them', () => {
    expect([...toFloat16(f32(65504, 65519, 65520, 2 ** -24, 2 ** -25, -1.5, 1e-8))]).toEqual([
      0x7bff, 0x7bff, 0x7c00, 1, 0, 0xbe00, 0,
    ]);
    expect([...toBfloat16(f32(1, -2, 3.3895314e38, 3.4028235e38, Number.POSITIVE_INFINITY))]).toEqual([
      0x3f80, 0xc000, 0x7f7f, 0x7f80, 0x7f80,
    ]);
    expect(fromBfloat16(toBfloat16(f32(Number.NaN)))[0]).toBeNaN();
  });
});

describe('tensors', () => {
  it('take their dtype from the array and read as float32', () => {
    expect(tensorOf(Int32Array.of(1, 2))).toEqual({ dtype: 'I32', shape: [2], data: Int32Array.of(1, 2) });
    expect(asFloat32({ dtype: 'BF16', shape: [1], data: Uint16Array.of(0x3f80) })).toEqual(f32(1));
    expect(asFloat32(tensorOf(Float64Array.of(0.1)))).toEqual(f32(0.1));
    expect(asFloat32(tensorOf(Int32Array.of(1)))).toBeNull();
  });

  it('view aligned bytes without a copy and copy others', () => {
    const bytes = new Uint8Array(17);
    expect(viewAs('F64', bytes.subarray(8, 16)).buffer).toBe(bytes.buffer);
    expect(viewAs('F64', bytes.subarray(1, 9)).buffer).not.toBe(bytes.buffer);
    expect(viewAs('F64', bytes.subarray(1, 17)).length * sizeOfDtype('F64')).toBe(16);
  });
});
