/** @file VJP rules of matrix products. */
import { asRows, type VjpRules } from './rule.ts';

export const LINALG_RULES: VjpRules = {
  /**
   * C = A'B' with A' = A or Aᵀ, B' = B or Bᵀ: dA' = D B'ᵀ, dB' = A'ᵀ D. For a transposed operand the product is written the
   * other way round instead of transposing its result.
   */
  matmul: ({ g, node, inputs, d, needs }) => {
    const [a, b] = [inputs[0]!, inputs[1]!];
    const { transposeA, transposeB } = node.attributes;
    const gradA = () =>
      transposeA
        ? g.matmul(b, d, { transposeA: transposeB, transposeB: true })
        : g.matmul(d, b, { transposeB: !transposeB });
    const gradB = () => {
      // A rank-2 B is shared by all batches: their rows are one long matrix.
      const shared = b.shape.length === 2 && a.shape.length > 2;
      const [rowsA, rowsD] = shared ? [asRows(g, a), asRows(g, d)] : [a, d];
      return transposeB
        ? g.matmul(rowsD, rowsA, { transposeA: true, transposeB: transposeA })
        : g.matmul(rowsA, rowsD, { transposeA: !transposeA });
    };
    return [needs(0) ? gradA() : undefined, needs(1) ? gradB() : undefined];
  },
};
