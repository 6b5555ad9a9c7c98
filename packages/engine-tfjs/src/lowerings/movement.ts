/** @file Ops that move values. */
import { sameShape, sizeOf } from '@frame-thinker/graph';
import type { Lowerings } from './lowering.ts';

export const MOVEMENT: Lowerings<'reshape' | 'transpose' | 'slice' | 'concat' | 'pad' | 'broadcast_to'> = {
  reshape: ({ tf, inputs: [x], shape }) => (sameShape(x!.shape, shape) ? undefined : (v) => tf.reshape(v!, shape)),

  transpose: ({ tf, attributes: { permutation } }) =>
    permutation.every((p, i) => p === i) ? undefined : (x) => tf.transpose(x!, permutation),

  slice: ({ tf, inputs: [x], attributes: { axis, start, end }, shape }) => {
    if (start === 0 && end === x!.shape[axis]) return undefined;
    const begin = shape.map((_, i) => (i === axis ? start : 0));
    return (v) => tf.slice(v!, begin, shape);
  },

  // Operands may be empty.
  concat: ({ tf, inputs, attributes: { axis } }) => {
    const parts = inputs.flatMap(({ shape }, i) => (sizeOf(shape) > 0 ? [i] : []));
    const [first = 0] = parts;
    // Alone, a part would come back as the same memory.
    if (parts.length === 1)
      return first === 0
        ? undefined
        : (...values) =>
            tf.tile(
              values[first]!,
              inputs[first]!.shape.map(() => 1),
            );
    return (...values) =>
      tf.concat(
        parts.map((i) => values[i]!),
        axis,
      );
  },

  // The operand may be empty.
  pad: ({ tf, inputs: [x], attributes: { axis, before, after }, shape }) => {
    if (sizeOf(x!.shape) === 0) return () => tf.fill(shape, 0, 'float32');
    if (before === 0 && after === 0) return undefined;
    const paddings = shape.map((_, i) => (i === axis ? ([before, after] as const) : ([0, 0] as const)));
    return (v) => tf.pad(v!, paddings);
  },

  broadcast_to: ({ tf, inputs: [x], shape }) => {
    if (sameShape(x!.shape, shape)) return undefined;
    const from = [...shape.slice(x!.shape.length).map(() => 1), ...x!.shape];
    const repetitions = shape.map((d, i) => d / from[i]!);
    return (v) => tf.tile(tf.reshape(v!, from), repetitions);
  },
};
