/** @file VJP rules of elementwise ops. d is the cotangent of y. */
import { unbroadcast, type VjpContext, type VjpRules } from './rule.ts';

/**
 * maximum and minimum: operand 0 gets the share of d where it wins; a tie is split evenly, as torch does, so the
 * result does not depend on the order of the operands.
 */
function chosen({ g, inputs, d, needs }: VjpContext<'maximum'> | VjpContext<'minimum'>, wins: 'larger' | 'smaller') {
  const [a, b] = [inputs[0]!, inputs[1]!];
  const atLeast = wins === 'larger' ? g.lessEqual(b, a) : g.lessEqual(a, b);
  const share = g.where(g.equal(a, b), g.scalar(0.5), g.cast(atLeast, 'float32'));
  const da = g.mul(d, share);
  return [
    needs(0) ? unbroadcast(g, da, a.shape) : undefined,
    needs(1) ? unbroadcast(g, g.sub(d, da), b.shape) : undefined,
  ];
}

export const ELEMENTWISE_RULES: VjpRules = {
  neg: ({ g, d }) => [g.neg(d)],
  // (eˣ)' = y
  exp: ({ g, output: y, d }) => [g.mul(d, y)],
  log: ({ g, inputs: [x], d }) => [g.div(d, x!)],
  // (√x)' = 1 / 2y
  sqrt: ({ g, output: y, d }) => [g.div(g.mul(d, g.scalar(0.5)), y)],
  // (1/x)' = −y²
  reciprocal: ({ g, output: y, d }) => [g.neg(g.mul(d, g.mul(y, y)))],
  // σ' = y (1 − y)
  sigmoid: ({ g, output: y, d }) => [g.mul(d, g.sub(y, g.mul(y, y)))],
  // (x σ)' = σ + y (1 − σ)
  silu: ({ g, inputs: [x], output: y, d }) => {
    const s = g.sigmoid(x!);
    return [g.mul(d, g.add(s, g.sub(y, g.mul(y, s))))];
  },
  // (x Φ)' = Φ + x φ,  Φ = (1 + erf(x/√2)) / 2,  φ = e^(−x²/2) / √(2π)
  gelu: ({ g, inputs, d }) => {
    const x = inputs[0]!;
    const cdf = g.mul(g.scalar(0.5), g.add(g.scalar(1), g.erf(g.mul(x, g.scalar(Math.SQRT1_2)))));
    const density = g.mul(g.scalar(1 / Math.sqrt(2 * Math.PI)), g.exp(g.mul(g.mul(x, x), g.scalar(-0.5))));
    return [g.mul(d, g.add(cdf, g.mul(x, density)))];
  },
  // erf' = 2/√π · e^(−x²)
  erf: ({ g, inputs, d }) => {
    const x = inputs[0]!;
    return [g.mul(d, g.mul(g.scalar(2 / Math.sqrt(Math.PI)), g.exp(g.neg(g.mul(x, x)))))];
  },
  // tanh' = 1 − y²
  tanh: ({ g, output: y, d }) => [g.sub(d, g.mul(d, g.mul(y, y)))],

  add: ({ g, inputs, d, needs }) => inputs.map((x, i) => (needs(i) ? unbroadcast(g, d, x.shape) : undefined)),
  sub: ({ g, inputs: [a, b], d, needs }) => [
    needs(0) ? unbroadcast(g, d, a!.shape) : undefined,
    needs(1) ? g.neg(unbroadcast(g, d, b!.shape)) : undefined,
  ],
  mul: ({ g, inputs: [a, b], d, needs }) => [
    needs(0) ? unbroadcast(g, g.mul(d, b!), a!.shape) : undefined,
    needs(1) ? unbroadcast(g, g.mul(d, a!), b!.shape) : undefined,
  ],
  // (a/b)' by b = −y/b
  div: ({ g, inputs: [a, b], output: y, d, needs }) => {
    const quotient = g.div(d, b!);
    return [
      needs(0) ? unbroadcast(g, quotient, a!.shape) : undefined,
      needs(1) ? g.neg(unbroadcast(g, g.mul(quotient, y), b!.shape)) : undefined,
    ];
  },
  maximum: (context) => chosen(context, 'larger'),
  minimum: (context) => chosen(context, 'smaller'),
  where: ({ g, inputs: [condition, a, b], d, needs }) => [
    undefined,
    needs(1) ? unbroadcast(g, g.where(condition!, d, g.scalar(0)), a!.shape) : undefined,
    needs(2) ? unbroadcast(g, g.where(condition!, g.scalar(0), d), b!.shape) : undefined,
  ],
  // Only float32 to float32 reaches here: other dtypes carry no gradient.
  cast: ({ d }) => [d],
};
