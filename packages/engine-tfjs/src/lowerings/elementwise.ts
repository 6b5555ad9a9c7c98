/** @file Elementwise ops. */
import type { Lowerings } from './lowering.ts';

export const ELEMENTWISE: Lowerings<
  | 'neg'
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'reciprocal'
  | 'sigmoid'
  | 'silu'
  | 'gelu'
  | 'erf'
  | 'tanh'
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'maximum'
  | 'minimum'
  | 'less_equal'
  | 'equal'
  | 'where'
  | 'cast'
> = {
  neg: ({ tf }) => tf.neg,
  exp: ({ tf }) => tf.exp,
  log: ({ tf }) => tf.log,
  sqrt: ({ tf }) => tf.sqrt,
  reciprocal: ({ tf }) => tf.reciprocal,
  sigmoid: ({ tf }) => tf.sigmoid,
  silu:
    ({ tf }) =>
    (x) =>
      tf.mul(x!, tf.sigmoid(x!)),
  // x Φ(x), Φ(x) = (1 + erf(x / √2)) / 2
  gelu: ({ tf, constant }) => {
    const [half, one, scale] = [0.5, 1, Math.SQRT1_2].map((x) => constant(Float32Array.of(x), []));
    return (x) => tf.mul(tf.mul(x!, half!), tf.add(tf.erf(tf.mul(x!, scale!)), one!));
  },
  erf: ({ tf }) => tf.erf,
  tanh: ({ tf }) => tf.tanh,
  add: ({ tf }) => tf.add,
  sub: ({ tf }) => tf.sub,
  mul: ({ tf }) => tf.mul,
  div: ({ tf }) => tf.div,
  maximum: ({ tf }) => tf.maximum,
  minimum: ({ tf }) => tf.minimum,
  // Bools are ordered as integers.
  less_equal: ({ tf, inputs: [a] }) =>
    a!.dtype === 'bool' ? (x, y) => tf.lessEqual(tf.cast(x!, 'int32'), tf.cast(y!, 'int32')) : tf.lessEqual,
  equal: ({ tf }) => tf.equal,
  where: ({ tf }) => tf.where,
  // To bool by a comparison: the WebAssembly backend keeps the lowest byte.
  cast: ({ tf, inputs: [from], attributes: { to }, constant }) => {
    const { dtype } = from!;
    if (dtype === to) return undefined;
    if (to !== 'bool') return (x) => tf.cast(x!, to);
    const zero = constant(dtype === 'float32' ? new Float32Array(1) : new Int32Array(1), []);
    return (x) => tf.notEqual(x!, zero);
  },
};
