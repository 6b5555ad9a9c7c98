/** @file The matrix product. */
import { sizeOf } from '../ops.ts';
import type { Kernels } from './kernel.ts';

/** out[m, n] += a[m, k] b[k, n]: rows of b stream through rows of out, four at a time to touch out less often. */
function multiply(out: Float64Array, a: Float64Array, b: Float64Array, m: number, k: number, n: number): void {
  for (let i = 0; i < m; i++) {
    const row = i * n;
    let p = 0;
    for (; p + 4 <= k; p += 4) {
      const from = i * k + p;
      const [x0, x1, x2, x3] = [a[from]!, a[from + 1]!, a[from + 2]!, a[from + 3]!];
      const [b0, b1, b2, b3] = [p * n, (p + 1) * n, (p + 2) * n, (p + 3) * n];
      for (let j = 0; j < n; j++)
        out[row + j]! += x0 * b[b0 + j]! + x1 * b[b1 + j]! + x2 * b[b2 + j]! + x3 * b[b3 + j]!;
    }
    for (; p < k; p++) {
      const x = a[i * k + p]!;
      for (let j = 0; j < n; j++) out[row + j]! += x * b[p * n + j]!;
    }
  }
}

/** [rows, columns] to [columns, rows]. */
function transposed(x: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = x[i * columns + j]!;
  return out;
}

export const LINALG_KERNELS: Kernels<'matmul'> = {
  matmul: (node, inputs) => {
    const [a, b] = [inputs[0]!, inputs[1]!];
    const { transposeA, transposeB } = node.attributes;
    const [m, n] = [node.shape.at(-2)!, node.shape.at(-1)!];
    const k = a.shape.at(transposeA ? -2 : -1)!;
    const out = new Float64Array(sizeOf(node.shape));
    const shared = b.shape.length === 2;
    const right = (batch: number): Float64Array => {
      const data = b.data.subarray(batch * k * n, (batch + 1) * k * n);
      return transposeB ? transposed(data, n, k) : data;
    };
    const sharedRight = shared ? right(0) : undefined;
    for (let batch = 0; batch < sizeOf(node.shape.slice(0, -2)); batch++) {
      const data = a.data.subarray(batch * m * k, (batch + 1) * m * k);
      const left = transposeA ? transposed(data, k, m) : data;
      multiply(out.subarray(batch * m * n, (batch + 1) * m * n), left, sharedRight ?? right(batch), m, k, n);
    }
    return out;
  },
};
