/** @file Matrix products. */
import { sizeOf } from '@frame-thinker/graph';
import type { ModelEmitter } from '../model-emitter.ts';
import type { Lowerings, Operand } from './lowering.ts';

function swapped(emit: ModelEmitter, { name, shape }: Operand): string {
  const { length: rank } = shape;
  const perm = shape.map((_, i) => (i === rank - 2 ? rank - 1 : i === rank - 1 ? rank - 2 : i));
  return emit.node('Transpose', [name], { attributes: { perm: { ints: perm } } });
}

export const MATMUL: Lowerings<'matmul'> = {
  // The operands may be empty (K = 0).
  matmul: ({ emit, inputs, attributes: { transposeA, transposeB }, shape, transposedWeight }) => {
    const [a, b] = inputs as [Operand, Operand];
    if (sizeOf(a.shape) === 0) return emit.filled(shape, 0);
    // A frozen weight is transposed once, here, so that MLAS can pack it when the session is made.
    const right = transposeB ? (transposedWeight(1) ?? swapped(emit, b)) : b.name;
    return emit.node('MatMul', [transposeA ? swapped(emit, a) : a.name, right]);
  },
};
