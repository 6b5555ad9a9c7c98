/** @file What a lowering is: the TensorFlow.js calls that compute one graph node. */
import type { DType, OpAttributes, OpName, Shape, TypedArray } from '@frame-thinker/graph';
import type { Tfjs, TfTensor } from '../tfjs.ts';

/** `input`, `parameter` and `constant` are bound by the program, not lowered. */
export type LoweredOp = Exclude<OpName, 'input' | 'parameter' | 'constant'>;

export interface LoweringContext<Name extends LoweredOp> {
  readonly tf: Tfjs;
  readonly attributes: OpAttributes[Name];
  /** Shapes and dtypes of the operands. None has zero elements, except of an op that says so. */
  readonly inputs: readonly { readonly dtype: DType; readonly shape: Shape }[];
  /** The output's; never of zero elements. */
  readonly dtype: DType;
  readonly shape: Shape;
  /** A tensor that lives as long as the program. */
  constant(data: TypedArray, shape: Shape): TfTensor;
}

/** Computes the output. An operand without elements is undefined. What it makes on the way is disposed after it. */
export type Call = (...inputs: TfTensor[]) => TfTensor;

/** Looks at shapes and attributes once; `undefined` says that the output is input 0 itself. */
export type Lowering<Name extends LoweredOp> = (context: LoweringContext<Name>) => Call | undefined;
export type Lowerings<Names extends LoweredOp> = { readonly [Name in Names]: Lowering<Name> };
