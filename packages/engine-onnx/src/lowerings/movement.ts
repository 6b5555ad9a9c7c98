/** @file Ops that move values. */
import { sameShape, sizeOf } from '@frame-thinker/graph';
import type { Lowerings } from './lowering.ts';

export const MOVEMENT: Lowerings<'reshape' | 'transpose' | 'slice' | 'concat' | 'pad' | 'broadcast_to'> = {
  reshape: ({ emit, inputs: [x], shape }) =>
    sameShape(x!.shape, shape) ? x!.name : emit.node('Reshape', [x!.name, emit.int64s(shape)]),

  transpose: ({ emit, inputs: [x], attributes: { permutation } }) =>
    permutation.every((p, i) => p === i)
      ? x!.name
      : emit.node('Transpose', [x!.name], { attributes: { perm: { ints: permutation } } }),

  slice: ({ emit, inputs: [x], attributes: { axis, start, end } }) =>
    start === 0 && end === x!.shape[axis]
      ? x!.name
      : emit.node('Slice', [x!.name, emit.int64s([start]), emit.int64s([end]), emit.int64s([axis])]),

  // Operands may be empty.
  concat: ({ emit, inputs, attributes: { axis } }) => {
    const parts = inputs.filter(({ shape }) => sizeOf(shape) > 0).map(({ name }) => name);
    return parts.length === 1 ? parts[0]! : emit.node('Concat', parts, { attributes: { axis: { int: axis } } });
  },

  // The operand may be empty.
  pad: ({ emit, inputs: [x], attributes: { axis, before, after }, shape }) => {
    if (sizeOf(x!.shape) === 0) return emit.filled(shape, 0);
    if (before === 0 && after === 0) return x!.name;
    const rank = shape.length;
    const pads = Array.from({ length: 2 * rank }, (_, i) => (i === axis ? before : i === axis + rank ? after : 0));
    return emit.node('Pad', [x!.name, emit.int64s(pads)]);
  },

  broadcast_to: ({ emit, inputs: [x], shape }) =>
    sameShape(x!.shape, shape) ? x!.name : emit.node('Expand', [x!.name, emit.int64s(shape)]),
};
