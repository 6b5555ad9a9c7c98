/** @file Kernels of elementwise ops. */
import { sizeOf } from '../ops.ts';
import type { DType, GraphNode } from '../types.ts';
import { eachRow, zip } from './broadcast.ts';
import { erf } from './erf.ts';
import type { Float64Tensor, Kernels } from './kernel.ts';

const map = (f: (x: number) => number) => (_node: GraphNode, inputs: readonly Float64Tensor[]) => {
  const x = inputs[0]!.data;
  const out = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) out[i] = f(x[i]!);
  return out;
};
const pair = (f: (x: number, y: number) => number) => (node: GraphNode, inputs: readonly Float64Tensor[]) =>
  zip(node.shape, inputs[0]!, inputs[1]!, f);

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const CASTS: { readonly [To in DType]: (x: number) => number } = {
  float32: (x) => x,
  int32: Math.trunc,
  bool: (x) => (x !== 0 ? 1 : 0),
};

export const ELEMENTWISE_KERNELS: Kernels<
  | ('neg' | 'exp' | 'log' | 'sqrt' | 'reciprocal' | 'sigmoid' | 'silu' | 'gelu' | 'erf' | 'tanh')
  | ('add' | 'sub' | 'mul' | 'div' | 'maximum' | 'minimum' | 'less_equal' | 'equal' | 'where' | 'cast')
> = {
  neg: map((x) => -x),
  exp: map(Math.exp),
  log: map(Math.log),
  sqrt: map(Math.sqrt),
  reciprocal: map((x) => 1 / x),
  sigmoid: map(sigmoid),
  silu: map((x) => x * sigmoid(x)),
  gelu: map((x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2))),
  erf: map(erf),
  tanh: map(Math.tanh),
  add: pair((x, y) => x + y),
  sub: pair((x, y) => x - y),
  mul: pair((x, y) => x * y),
  div: pair((x, y) => x / y),
  maximum: pair(Math.max),
  minimum: pair(Math.min),
  less_equal: pair((x, y) => (x <= y ? 1 : 0)),
  equal: pair((x, y) => (x === y ? 1 : 0)),
  where: (node, inputs) => {
    const [condition, a, b] = inputs.map((t) => t.data) as [Float64Array, Float64Array, Float64Array];
    const out = new Float64Array(sizeOf(node.shape));
    const shapes = inputs.map((t) => t.shape);
    eachRow(node.shape, shapes, (offset, length, starts, steps) => {
      for (let k = 0; k < length; k++)
        out[offset + k] = condition[starts[0]! + k * steps[0]!]
          ? a[starts[1]! + k * steps[1]!]!
          : b[starts[2]! + k * steps[2]!]!;
    });
    return out;
  },
  cast: (node, inputs) => map(CASTS[node.attributes.to])(node, inputs),
};
