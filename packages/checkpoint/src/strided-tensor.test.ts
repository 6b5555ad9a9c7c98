import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Dtype, elementCount, sizeOfDtype } from './dtype.ts';
import { MOST_READ, stridedTensor } from './strided-tensor.ts';
import { streamTensor } from './tensor-stream.ts';

interface View {
  dtype: Dtype;
  offset: number;
  shape: number[];
  stride: number[];
}

/** Bytes that the storage gave, and the reads that it took. */
function countingStorage(bytes: Uint8Array) {
  const counted = { bytes: 0, reads: 0 };
  const read = (begin: number, target: Uint8Array) => {
    if (begin < 0 || begin + target.byteLength > bytes.byteLength) throw new Error('past the storage');
    counted.bytes += target.byteLength;
    counted.reads++;
    target.set(bytes.subarray(begin, begin + target.byteLength));
  };
  return { counted, storage: { fingerprint: null, read } };
}

/** Element by element. */
function elementsOf(storage: Uint8Array, { dtype, offset, shape, stride }: View, begin: number, end: number): Buffer {
  const size = sizeOfDtype(dtype);
  const parts: Uint8Array[] = [];
  for (let i = begin; i < end; i++) {
    let at = offset;
    for (let dim = shape.length - 1, rest = i; dim >= 0; dim--) {
      at += (rest % (shape[dim] as number)) * (stride[dim] as number);
      rest = Math.floor(rest / (shape[dim] as number));
    }
    parts.push(storage.subarray(at * size, (at + 1) * size));
  }
  return Buffer.concat(parts);
}

/** Dims in any order, each with any gap behind its elements; some of one element, some that repeat. */
const viewArbitrary: fc.Arbitrary<View> = fc
  .record({
    dtype: fc.constantFrom<Dtype>('U8', 'BF16', 'F32', 'I64'),
    dims: fc.array(
      fc.record({
        extent: fc.integer({ min: 1, max: 6 }),
        gap: fc.oneof(fc.constant(0), fc.nat(40)),
        place: fc.nat(9),
      }),
      { minLength: 1, maxLength: 5 },
    ),
    repeat: fc.nat(8),
    offset: fc.nat(20),
  })
  .map(({ dtype, dims, repeat, offset }) => {
    let next = 1;
    const laid = dims.map(({ extent, gap }, dim) => {
      const stride = dim === repeat ? 0 : next + gap;
      if (dim !== repeat) next = stride * extent;
      return { extent, stride };
    });
    const order = [...laid.keys()].sort((a, b) => (dims[a]?.place ?? 0) - (dims[b]?.place ?? 0));
    return {
      dtype,
      offset,
      shape: order.map((d) => laid[d]?.extent ?? 0),
      stride: order.map((d) => laid[d]?.stride ?? 0),
    };
  });

describe('a view of a storage', () => {
  it('gives its elements in order, in any range, and reads few bytes beside them', () => {
    fc.assert(
      fc.property(viewArbitrary, fc.nat(), fc.nat(), (view, a, b) => {
        const size = sizeOfDtype(view.dtype);
        const last = view.shape.reduce((sum, n, d) => sum + (n - 1) * (view.stride[d] as number), view.offset);
        const bytes = new Uint8Array((last + 1) * size).map((_, i) => (i * 37 + (i >> 8)) % 251);
        const { counted, storage } = countingStorage(bytes);
        const count = elementCount(view.shape);
        const [begin = 0, end = 0] = [a % (count + 1), b % (count + 1)].sort((x, y) => x - y);
        const target = Buffer.alloc((end - begin) * size);
        stridedTensor(storage, view).read(begin, target);
        expect(target.equals(elementsOf(bytes, view, begin, end))).toBe(true);
        expect(counted.bytes).toBeLessThanOrEqual(MOST_READ * target.byteLength);
      }),
      { numRuns: 2000 },
    );
  });

  /** More than a piece holds. */
  const dims = [90, 130, 170];
  const laid = [130 * 170, 170, 1];
  it.each([[[0, 2, 1]], [[1, 0, 2]], [[1, 2, 0]], [[2, 0, 1]], [[2, 1, 0]]])(
    'of three dims in the order %j is read twice at most, in few reads',
    (order) => {
      const bytes = Buffer.from(Float32Array.from({ length: elementCount(dims) }, (_, i) => i).buffer);
      const { counted, storage } = countingStorage(bytes);
      const shape = order.map((d) => dims[d] as number);
      const stride = order.map((d) => laid[d] as number);
      const tensor = stridedTensor(storage, { dtype: 'F32', offset: 0, shape, stride });
      const parts: Buffer[] = [];
      streamTensor(tensor, 'F32', (chunk) => parts.push(Buffer.from(chunk)));
      const found = Buffer.concat(parts);
      for (let i = 0; i < elementCount(dims); i += 7) {
        const at = [Math.floor(i / (shape[1]! * shape[2]!)), Math.floor(i / shape[2]!) % shape[1]!, i % shape[2]!];
        const expected = at.reduce((sum, index, d) => sum + index * stride[d]!, 0);
        if (found.readFloatLE(4 * i) !== expected) expect([i, found.readFloatLE(4 * i)]).toEqual([i, expected]);
      }
      expect(counted.bytes).toBeLessThan(2.1 * bytes.byteLength);
      expect(counted.reads).toBeLessThan(200);
    },
  );
});
