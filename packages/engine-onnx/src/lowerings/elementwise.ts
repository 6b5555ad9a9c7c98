/** @file Elementwise ops. */
import type { DType } from '@frame-thinker/graph';
import type { ModelEmitter, NodeOptions } from '../model-emitter.ts';
import type { LoweredOp, Lowering, Lowerings, Operand } from './lowering.ts';

const ELEMENT_CODE: Readonly<Record<DType, number>> = { float32: 1, int32: 6, bool: 9 };

export function castTo(emit: ModelEmitter, name: string, to: DType): string {
  return emit.node('Cast', [name], { attributes: { to: { int: ELEMENT_CODE[to] } } });
}

const same =
  <Name extends LoweredOp>(opType: string, options?: NodeOptions): Lowering<Name> =>
  ({ emit, inputs }) =>
    emit.node(
      opType,
      inputs.map(({ name }) => name),
      options,
    );

/** Comparisons of bools go through int32: ONNX orders no bools. */
const comparison =
  <Name extends LoweredOp>(opType: string): Lowering<Name> =>
  ({ emit, inputs }) => {
    const ordered = ({ name, dtype }: Operand): string => (dtype === 'bool' ? castTo(emit, name, 'int32') : name);
    return emit.node(opType, inputs.map(ordered));
  };

export const ELEMENTWISE: Lowerings<
  | 'neg'
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'reciprocal'
  | 'sigmoid'
  | 'silu'
  | 'gelu'
  | 'erf'
  | 'tanh'
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'maximum'
  | 'minimum'
  | 'less_equal'
  | 'equal'
  | 'where'
  | 'cast'
> = {
  neg: same('Neg'),
  exp: same('Exp'),
  log: same('Log'),
  sqrt: same('Sqrt'),
  reciprocal: same('Reciprocal'),
  sigmoid: same('Sigmoid'),
  // x · sigmoid(alpha x) in one kernel.
  silu: same('QuickGelu', { domain: 'com.microsoft', attributes: { alpha: { float: 1 } } }),
  gelu: same('Gelu', { domain: 'com.microsoft' }),
  erf: same('Erf'),
  tanh: same('Tanh'),
  add: same('Add'),
  sub: same('Sub'),
  mul: same('Mul'),
  div: same('Div'),
  maximum: same('Max'),
  minimum: same('Min'),
  less_equal: comparison('LessOrEqual'),
  equal: comparison('Equal'),
  where: same('Where'),
  cast: ({ emit, inputs, attributes: { to } }) =>
    inputs[0]!.dtype === to ? inputs[0]!.name : castTo(emit, inputs[0]!.name, to),
};
