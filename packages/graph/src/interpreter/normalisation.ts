/** @file Kernels of ops on whole rows. */
import type { Float64Tensor, Kernels } from './kernel.ts';

/** Applies `f` to each row of the last axis, giving it a row of the result to fill. */
function mapRows({ shape, data }: Float64Tensor, f: (x: Float64Array, out: Float64Array) => void): Float64Array {
  const width = shape.at(-1)!;
  const out = new Float64Array(data.length);
  for (let i = 0; i < data.length; i += width) f(data.subarray(i, i + width), out.subarray(i, i + width));
  return out;
}

/** [max, Σ exp(x − max)]. */
function exponentials(x: Float64Array): [largest: number, sum: number] {
  let largest = Number.NEGATIVE_INFINITY;
  for (const v of x) if (v > largest) largest = v;
  let sum = 0;
  for (const v of x) sum += Math.exp(v - largest);
  return [largest, sum];
}

export const NORMALISATION_KERNELS: Kernels<'softmax' | 'log_softmax' | 'rms_norm' | 'rope'> = {
  softmax: (_, inputs) =>
    mapRows(inputs[0]!, (x, out) => {
      const [largest, sum] = exponentials(x);
      for (let i = 0; i < x.length; i++) out[i] = Math.exp(x[i]! - largest) / sum;
    }),
  log_softmax: (_, inputs) =>
    mapRows(inputs[0]!, (x, out) => {
      const [largest, sum] = exponentials(x);
      const shift = largest + Math.log(sum);
      for (let i = 0; i < x.length; i++) out[i] = x[i]! - shift;
    }),
  rms_norm: (node, inputs) => {
    const weight = inputs[1]!.data;
    return mapRows(inputs[0]!, (x, out) => {
      let squares = 0;
      for (const v of x) squares += v * v;
      const inverse = 1 / Math.sqrt(squares / x.length + node.attributes.eps);
      for (let i = 0; i < x.length; i++) out[i] = x[i]! * inverse * weight[i]!;
    });
  },
  rope: (node, inputs) => {
    const [x, cos, sin] = inputs.map((t) => t.data) as [Float64Array, Float64Array, Float64Array];
    const { heads } = node.attributes;
    const [rows, half] = [inputs[1]!.shape[0]!, inputs[1]!.shape[1]!];
    const out = new Float64Array(x.length);
    for (let t = 0; t < rows; t++)
      for (let h = 0; h < heads; h++)
        for (let j = 0; j < half; j++) {
          const first = (t * heads + h) * 2 * half + j;
          const [x1, x2, c, s] = [x[first]!, x[first + half]!, cos[t * half + j]!, sin[t * half + j]!];
          out[first] = x1 * c - x2 * s;
          out[first + half] = x2 * c + x1 * s;
        }
    return out;
  },
};
