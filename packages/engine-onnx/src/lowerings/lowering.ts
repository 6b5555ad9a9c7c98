/** @file What a lowering is: the ONNX nodes that compute one graph node. */
import type { DType, OpAttributes, OpName, Shape } from '@frame-thinker/graph';
import type { ModelEmitter } from '../model-emitter.ts';

/** `input`, `parameter` and `constant` are bound by the model, not lowered. */
export type LoweredOp = Exclude<OpName, 'input' | 'parameter' | 'constant'>;

export interface Operand {
  /** Its name in the ONNX model. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

export interface LoweringContext<Name extends LoweredOp> {
  readonly emit: ModelEmitter;
  readonly attributes: OpAttributes[Name];
  /** None has zero elements, except an operand of an op that says so. */
  readonly inputs: readonly Operand[];
  /** The output; never of zero elements. */
  readonly dtype: DType;
  readonly shape: Shape;
  /** The transpose of input i as an initializer, when that is a frozen weight of rank 2. */
  transposedWeight(i: number): string | undefined;
}

/** Emits the nodes and returns the name of the result (an input's own name when there is nothing to do). */
export type Lowering<Name extends LoweredOp> = (context: LoweringContext<Name>) => string;
export type Lowerings<Names extends LoweredOp> = { readonly [Name in Names]: Lowering<Name> };
