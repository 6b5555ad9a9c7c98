/** @file What an interpreter kernel gets and gives. All data is row-major Float64Array: int32 and bool values are exact in it. */
import type { OpName } from '../ops.ts';
import type { DType, GraphNode, Shape } from '../types.ts';

/** A tensor of the interpreter. */
export interface Float64Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: Float64Array;
}

export type Kernel<Name extends OpName> = (
  node: GraphNode<Name>,
  inputs: readonly Float64Tensor[],
) => Float64Array<ArrayBufferLike>;
export type Kernels<Names extends OpName> = { readonly [Name in Names]: Kernel<Name> };
