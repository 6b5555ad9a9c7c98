/** @file Reductions. */
import { sizeOf } from '@frame-thinker/graph';
import type { Lowering, Lowerings } from './lowering.ts';

/** @param empty the result over no values; the operand may be empty. */
const reduction =
  <Name extends 'sum' | 'max'>(opType: string, empty: number): Lowering<Name> =>
  ({ emit, inputs: [x], attributes: { axes, keepDims }, shape }) => {
    if (sizeOf(x!.shape) === 0) return emit.filled(shape, empty);
    if (axes.length === 0) return x!.name;
    const attributes = { keepdims: { int: keepDims ? 1 : 0 } };
    return emit.node(opType, [x!.name, emit.int64s(axes)], { attributes });
  };

export const REDUCTION: Lowerings<'sum' | 'max'> = {
  sum: reduction('ReduceSum', 0),
  max: reduction('ReduceMax', Number.NEGATIVE_INFINITY),
};
