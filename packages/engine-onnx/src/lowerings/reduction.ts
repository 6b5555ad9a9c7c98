/** @file Reductions. */
import { sizeOf } from '@frame-thinker/graph';
import type { Lowering, Lowerings } from './lowering.ts';

/** Rows from which a sum over the leading axes is faster as a product with ones. */
const MATMUL_ROWS = 64;

/** @param empty the result over no values; the operand may be empty. */
const reduction =
  <Name extends 'sum' | 'max'>(opType: string, empty: number): Lowering<Name> =>
  ({ emit, inputs: [x], attributes: { axes, keepDims }, shape }) => {
    if (sizeOf(x!.shape) === 0) return emit.filled(shape, empty);
    if (axes.length === 0) return x!.name;
    const attributes = { keepdims: { int: keepDims ? 1 : 0 } };
    return emit.node(opType, [x!.name, emit.int64s(axes)], { attributes });
  };

const reduceSum = reduction<'sum'>('ReduceSum', 0);

export const REDUCTION: Lowerings<'sum' | 'max'> = {
  sum: (context) => {
    const { emit, inputs, attributes, shape } = context;
    const x = inputs[0]!;
    const axes = [...attributes.axes].sort((a, b) => a - b);
    const rows = sizeOf(x.shape.slice(0, axes.length));
    const leading = axes.every((axis, i) => axis === i) && axes.length < x.shape.length;
    if (!leading || rows < MATMUL_ROWS || sizeOf(x.shape) === 0) return reduceSum(context);
    const flat = emit.node('Reshape', [x.name, emit.int64s([rows, sizeOf(x.shape) / rows])]);
    const total = emit.node('MatMul', [emit.constant('float32', [1, rows], new Float32Array(rows).fill(1)), flat]);
    return emit.node('Reshape', [total, emit.int64s(shape)]);
  },
  max: reduction('ReduceMax', Number.NEGATIVE_INFINITY),
};
