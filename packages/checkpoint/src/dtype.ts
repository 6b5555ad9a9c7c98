/** @file Element types of safetensors files, and exact conversion to and from float32. */
import { InvariantError } from '@frame-thinker/core';

/** Element types that are read and written; others are refused by name. */
export const DTYPES = ['F64', 'I64', 'F32', 'I32', 'BF16', 'F16', 'U8', 'BOOL'] as const;
export type Dtype = (typeof DTYPES)[number];
export type FloatDtype = 'F32' | 'BF16' | 'F16';

/** BF16 and F16 are held as their 16 bits, BOOL as bytes of 0 and 1. */
export type TensorArray = Float64Array | BigInt64Array | Float32Array | Int32Array | Uint16Array | Uint8Array;

/** A tensor in memory, row-major. `data` holds exactly the product of `shape` elements of `dtype`. */
export interface TensorData {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: TensorArray;
}

const ARRAYS = {
  F64: Float64Array,
  I64: BigInt64Array,
  F32: Float32Array,
  I32: Int32Array,
  BF16: Uint16Array,
  F16: Uint16Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const;

export function isDtype(name: unknown): name is Dtype {
  return DTYPES.includes(name as Dtype);
}

/** Bytes of one element. */
export function sizeOfDtype(dtype: Dtype): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** Wraps a typed array whose element type says its dtype; 16-bit floats need theirs written out. */
export function tensorOf(
  data: Float64Array | BigInt64Array | Float32Array | Int32Array | Uint8Array,
  shape: readonly number[] = [data.length],
): TensorData {
  const dtype = (['F64', 'I64', 'F32', 'I32', 'U8'] as const).find((d) => data instanceof ARRAYS[d]);
  if (!dtype) throw new InvariantError(`tensorOf: ${data.constructor.name} has no dtype of its own`);
  return { dtype, shape, data };
}

/** The bytes of a tensor's data, without a copy (little-endian machines only, as Node's are). */
export function bytesOf(data: TensorArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Views bytes as elements of `dtype`; copies only when they are not aligned. */
export function viewAs(dtype: Dtype, bytes: Uint8Array): TensorArray {
  const size = sizeOfDtype(dtype);
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new ARRAYS[dtype](aligned.buffer as ArrayBuffer, aligned.byteOffset, bytes.byteLength / size);
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** bfloat16 bits of every value: round to nearest even, NaN stays NaN. `out` is as long as `values`. */
export function toBfloat16(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < out.length; i++) {
    const b = bits[i]!;
    // Adding 0x7fff plus the lowest kept bit rounds half to even; a NaN could carry over into infinity, so it keeps its
    // top bits and is made quiet instead.
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
}

export function fromBfloat16(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < out.length; i++) out[i] = bits[i]! << 16;
  return new Float32Array(out.buffer);
}

function halfOf(value: number): number {
  scratch[0] = value;
  const b = scratchBits[0]!;
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00; // 65536 and more
  if (magnitude < 0x33000000) return sign; // below half of the smallest subnormal, 2^-25
  const exponent = magnitude >>> 23;
  if (exponent >= 113) {
    // A normal half; the carry of rounding may reach infinity, as it should from 65520 on.
    const rebased = magnitude - (112 << 23);
    return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
  }
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - exponent; // 14…24: the value is mantissa · 2^(exponent-150), a subnormal's unit is 2^-24
  return sign | ((mantissa + (1 << (shift - 1)) - 1 + ((mantissa >>> shift) & 1)) >>> shift);
}

/** float16 bits of every value: round to nearest even, overflow to infinity, NaN stays NaN. */
export function toFloat16(values: Float32Array): Uint16Array {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = halfOf(values[i]!);
  return out;
}

export function fromFloat16(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < out.length; i++) {
    const b = bits[i]!;
    const sign = b & 0x8000 ? -1 : 1;
    const exponent = (b >>> 10) & 31;
    const mantissa = b & 0x3ff;
    if (exponent === 31) out[i] = mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else out[i] = exponent ? sign * (1 + mantissa / 1024) * 2 ** (exponent - 15) : sign * mantissa * 2 ** -24;
  }
  return out;
}

/** Values of a floating-point tensor as float32 (exact for F32, BF16, F16); null for other dtypes. */
export function asFloat32(tensor: TensorData): Float32Array | null {
  switch (tensor.dtype) {
    case 'F32':
      return tensor.data as Float32Array;
    case 'BF16':
      return fromBfloat16(tensor.data as Uint16Array);
    case 'F16':
      return fromFloat16(tensor.data as Uint16Array);
    case 'F64':
      return new Float32Array(tensor.data as Float64Array);
    default:
      return null;
  }
}

/** float32 values in a floating-point dtype. */
export function fromFloat32(dtype: FloatDtype, values: Float32Array): TensorArray {
  if (dtype === 'F32') return values;
  return dtype === 'BF16' ? toBfloat16(values) : toFloat16(values);
}
