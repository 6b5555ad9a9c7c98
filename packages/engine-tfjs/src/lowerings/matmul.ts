/** @file Matrix products. */
import { sizeOf } from '@frame-thinker/graph';
import type { Lowerings } from './lowering.ts';

export const MATMUL: Lowerings<'matmul'> = {
  // The operands may be empty (K = 0).
  matmul: ({ tf, inputs, attributes: { transposeA, transposeB }, shape }) => {
    const [a, b] = [inputs[0]!.shape, inputs[1]!.shape];
    if (sizeOf(a) === 0) return () => tf.fill(shape, 0, 'float32');
    const product = (x: Parameters<typeof tf.matMul>[0], y: typeof x) => tf.matMul(x, y, transposeA, transposeB);
    if (a.length === b.length && a.length <= 3) return (x, y) => product(x!, y!);
    // Batches as one axis; a rank-2 b is shared by all of them, whose rows are then one long matrix.
    const flat = (of: typeof a) => [sizeOf(of.slice(0, -2)), ...of.slice(-2)];
    const shapeA = b.length === 2 ? [sizeOf(a.slice(0, -1)), a.at(-1)!] : flat(a);
    const shapeB = b.length === 2 ? b : flat(b);
    return (x, y) => tf.reshape(product(tf.reshape(x!, shapeA), tf.reshape(y!, shapeB)), shape);
  },
};
