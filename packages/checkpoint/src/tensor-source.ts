/** @file Tensors that are read only when they are written, and their bytes in the dtype they are stored in. */
import { InvariantError } from '@frame-thinker/core';
import {
  asFloat32,
  bytesOf,
  type Dtype,
  elementCount,
  type FloatDtype,
  fromFloat32,
  type TensorArray,
  type TensorData,
} from './dtype.ts';
import type { RangedTensor } from './ranged-tensor.ts';

/** `dtype` is what it is stored as, F32 where it is left out. */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype?: Dtype;
  /** float32 values, or a tensor of any dtype. */
  read(): Float32Array | TensorData | Promise<Float32Array | TensorData>;
}

/** A tensor that is written piece by piece, so that memory does not grow with it. */
export interface RangedSource {
  readonly name: string;
  readonly tensor: RangedTensor;
}

const isFloat = (dtype: Dtype): dtype is FloatDtype => dtype === 'F32' || dtype === 'BF16' || dtype === 'F16';

/** Reads a source as bytes of `dtype`; counts finite values that the dtype cannot hold. */
export async function readSource(
  source: TensorSource,
  dtype: Dtype,
): Promise<{ bytes: Uint8Array; overflowed: number }> {
  const value = await source.read();
  const tensor: TensorData = value instanceof Float32Array ? { dtype: 'F32', shape: source.shape, data: value } : value;
  if (tensor.data.length !== elementCount(source.shape))
    throw new InvariantError(
      `tensor ${source.name}: ${tensor.data.length} values were read, its shape [${source.shape}] has ${elementCount(source.shape)}`,
    );
  if (tensor.dtype === dtype) return { bytes: bytesOf(tensor.data), overflowed: 0 };
  const values = asFloat32(tensor);
  if (!values || !isFloat(dtype))
    throw new InvariantError(`tensor ${source.name}: ${tensor.dtype} cannot be stored as ${dtype}`);
  const data = fromFloat32(dtype, values);
  return { bytes: bytesOf(data), overflowed: countOverflow(dtype, values, data) };
}

function countOverflow(dtype: FloatDtype, values: Float32Array, stored: TensorArray): number {
  if (dtype === 'F32') return 0;
  const infinity = dtype === 'F16' ? 0x7c00 : 0x7f80;
  let count = 0;
  for (let i = 0; i < stored.length; i++)
    if ((Number(stored[i]) & 0x7fff) === infinity && Number.isFinite(values[i])) count++;
  return count;
}
