/** @file Reductions. */
import { sizeOf } from '@frame-thinker/graph';
import type { Lowering, Lowerings } from './lowering.ts';

/** @param empty the result over no values; the operand may be empty. */
const reduction =
  <Name extends 'sum' | 'max'>(name: Name, empty: number): Lowering<Name> =>
  ({ tf, inputs: [x], attributes: { axes, keepDims }, shape }) => {
    if (sizeOf(x!.shape) === 0) return () => tf.fill(shape, empty, 'float32');
    return axes.length === 0 ? undefined : (v) => tf[name](v!, axes, keepDims);
  };

export const REDUCTION: Lowerings<'sum' | 'max'> = {
  sum: reduction('sum', 0),
  max: reduction('max', Number.NEGATIVE_INFINITY),
};
