import fc from 'fast-check';
import { expect, it } from 'vitest';
import { bytesOf, toBfloat16, viewAs } from './dtype.ts';
import { streamTensor } from './tensor-stream.ts';

/** bfloat16 of values as a stream gives it. */
function streamed(values: Float32Array): { bits: number[]; overflowed: number } {
  const bytes = bytesOf(values);
  const parts: number[] = [];
  const tensor = {
    dtype: 'F32' as const,
    shape: [values.length],
    fingerprint: null,
    read: (begin: number, target: Uint8Array) => target.set(bytes.subarray(4 * begin, 4 * begin + target.byteLength)),
  };
  const overflowed = streamTensor(tensor, 'BF16', (chunk) => {
    for (const bits of viewAs('BF16', chunk) as Uint16Array) parts.push(bits);
  });
  return { bits: parts, overflowed };
}

it('gives the bfloat16 of any float32 bits, eight at a time or one by one', () => {
  const word = fc.oneof(
    fc.nat(0xffffffff),
    // Ties, the edge of infinity, infinities and NaNs, of both signs.
    fc.constantFrom(0x3f808000, 0x3f818000, 0x3f807fff, 0x7f7f7fff, 0x7f7f8000, 0x7f800000, 0x7f800001, 0, 1),
    fc.constantFrom(0xbf808000, 0xff7f7fff, 0xff7f8000, 0xff800000, 0xffc12345, 0x80000000, 0x80000001),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 40 }), (words) => {
      const values = new Float32Array(Uint32Array.from(words).buffer);
      const { bits, overflowed } = streamed(values);
      expect(bits).toEqual([...toBfloat16(values)]);
      const infinite = (i: number) => ((bits[i] as number) & 0x7fff) === 0x7f80;
      expect(overflowed).toBe([...values.keys()].filter((i) => infinite(i) && Number.isFinite(values[i])).length);
    }),
    { numRuns: 200 },
  );
});

it('takes more values than a piece holds', () => {
  const values = Float32Array.from({ length: (1 << 20) + 5 }, (_, i) => Math.sin(i));
  expect(Buffer.compare(bytesOf(Uint16Array.from(streamed(values).bits)), bytesOf(toBfloat16(values)))).toBe(0);
});
