/** @file Gathers and scatter-adds. TensorFlow.js has none along the last axis: they go through flat positions. */
import { type Shape, sizeOf } from '@frame-thinker/graph';
import type { TfTensor } from '../tfjs.ts';
import type { LoweringContext, Lowerings } from './lowering.ts';

/** Not every backend refuses an index that is out of range: some read or write elsewhere. */
function inRange(indices: TfTensor, size: number): TfTensor {
  const values = indices.dataSync();
  for (let i = 0; i < values.length; i++)
    if (!(values[i]! >= 0 && values[i]! < size))
      throw new RangeError(`index ${values[i]} at ${i}, must be in [0, ${size})`);
  return indices;
}

/** indices [..., K] along a last axis of `size` → positions in the flat array, [rows · K]. */
function flatPositions(
  { tf, constant }: Pick<LoweringContext<'take_along_last' | 'scatter_add_last'>, 'tf' | 'constant'>,
  { indices, size }: { indices: Shape; size: number },
): (indices: TfTensor) => TfTensor {
  const taken = indices.at(-1)!;
  const rows = sizeOf(indices) / taken;
  const starts = constant(
    Int32Array.from({ length: rows }, (_, row) => row * size),
    [rows, 1],
  );
  return (values) => tf.reshape(tf.add(tf.reshape(inRange(values, size), [rows, taken]), starts), [rows * taken]);
}

export const INDEXING: Lowerings<'gather_rows' | 'scatter_add_rows' | 'take_along_last' | 'scatter_add_last'> = {
  gather_rows:
    ({ tf, inputs: [table] }) =>
    (values, indices) =>
      tf.gather(values!, inRange(indices!, table!.shape[0]!), 0),

  // The updates may be empty.
  scatter_add_rows: ({ tf, inputs: [updates, indices], attributes: { rows }, shape }) => {
    if (sizeOf(updates!.shape) === 0) return () => tf.fill(shape, 0, 'float32');
    const count = sizeOf(indices!.shape);
    const row = shape.slice(1);
    return (values, at) =>
      tf.scatterND(tf.reshape(inRange(at!, rows), [count, 1]), tf.reshape(values!, [count, ...row]), shape);
  },

  take_along_last: (context) => {
    const { tf, inputs, shape } = context;
    const x = inputs[0]!.shape;
    const positions = flatPositions(context, { indices: shape, size: x.at(-1)! });
    const flat = [sizeOf(x)];
    return (values, indices) => tf.reshape(tf.gather(tf.reshape(values!, flat), positions(indices!), 0), shape);
  },

  // The updates may be empty.
  scatter_add_last: (context) => {
    const { tf, inputs, attributes, shape } = context;
    const updates = inputs[0]!.shape;
    const count = sizeOf(updates);
    if (count === 0) return () => tf.fill(shape, 0, 'float32');
    const positions = flatPositions(context, { indices: updates, size: attributes.size });
    const flat = [sizeOf(shape)];
    return (values, indices) => {
      const at = tf.reshape(positions(indices!), [count, 1]);
      return tf.reshape(tf.scatterND(at, tf.reshape(values!, [count]), flat), shape);
    };
  },
};
