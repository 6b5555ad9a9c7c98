/** @file Streams ranged tensors in pieces of bounded size, in the dtype they are to be stored in. */
import { InvariantError } from '@frame-thinker/core';
import { asFloat32, bytesOf, type Dtype, elementCount, fromFloat32, sizeOfDtype, toBfloat16, viewAs } from './dtype.ts';
import type { RangedTensor } from './ranged-tensor.ts';

/** Bytes of a tensor that are in memory at once, before and after conversion each at most twice that. */
const CHUNK = 4 << 20;

let source = new Uint8Array(0);
let converted = new Uint16Array(0);
let busy = false;

const isFloat = (dtype: Dtype) => dtype === 'F32' || dtype === 'BF16' || dtype === 'F16';

/** Finite values that became infinite. */
function countOverflow(values: Float32Array, stored: Uint16Array, infinity: number): number {
  let count = 0;
  for (let i = 0; i < stored.length; i++)
    if (((stored[i] as number) & 0x7fff) === infinity && Number.isFinite(values[i])) count++;
  return count;
}

/** Converts a chunk; the result is valid until the next one. */
function convert(from: Dtype, bytes: Uint8Array, to: Dtype): { bytes: Uint8Array; overflowed: number } {
  if (from === to) return { bytes, overflowed: 0 };
  const data = viewAs(from, bytes);
  const values = asFloat32({ dtype: from, shape: [data.length], data });
  if (!values || !isFloat(to)) throw new InvariantError(`${from} cannot be stored as ${to}`);
  if (to === 'F32') return { bytes: bytesOf(values), overflowed: 0 };
  if (to === 'BF16') {
    if (converted.length < values.length) converted = new Uint16Array(values.length);
    const stored = toBfloat16(values, converted.subarray(0, values.length));
    return { bytes: bytesOf(stored), overflowed: countOverflow(values, stored, 0x7f80) };
  }
  const stored = fromFloat32('F16', values) as Uint16Array;
  return { bytes: bytesOf(stored), overflowed: countOverflow(values, stored, 0x7c00) };
}

/**
 * Passes on all bytes of a tensor as `dtype`, in order. A chunk is valid only while `visit` runs.
 * @returns the number of finite values that `dtype` cannot hold.
 */
export function streamTensor(tensor: RangedTensor, dtype: Dtype, visit: (chunk: Uint8Array) => void): number {
  if (busy) throw new InvariantError('streamTensor: a stream within a stream');
  busy = true;
  try {
    const total = elementCount(tensor.shape);
    const size = sizeOfDtype(tensor.dtype);
    if (source.byteLength === 0 && total > 0) source = new Uint8Array(CHUNK);
    // Whole rows of the last dim, where they fit: joins on a later dim then read each part in one go.
    const columns = Math.max(1, tensor.shape.at(-1) ?? 1);
    const most = CHUNK / size;
    const step = columns <= most ? most - (most % columns) : most;
    let overflowed = 0;
    for (let at = 0; at < total; at += step) {
      const chunk = source.subarray(0, Math.min(step, total - at) * size);
      tensor.read(at, chunk);
      const stored = convert(tensor.dtype, chunk, dtype);
      overflowed += stored.overflowed;
      visit(stored.bytes);
    }
    return overflowed;
  } finally {
    busy = false;
  }
}

/** Whether two tensors of one shape and dtype hold the same bytes. */
export function tensorsEqual(a: RangedTensor, b: RangedTensor): boolean {
  if (a.dtype !== b.dtype || String(a.shape) !== String(b.shape)) return false;
  if (a.fingerprint !== null && a.fingerprint === b.fingerprint) return true;
  const size = sizeOfDtype(a.dtype);
  const other = new Uint8Array(Math.min(CHUNK, elementCount(a.shape) * size));
  let at = 0;
  let equal = true;
  streamTensor(a, a.dtype, (chunk) => {
    const beside = other.subarray(0, chunk.byteLength);
    if (equal) b.read(at / size, beside);
    equal &&= Buffer.compare(chunk, beside) === 0;
    at += chunk.byteLength;
  });
  return equal;
}
