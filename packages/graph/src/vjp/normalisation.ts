/** @file VJP rules of ops that work on whole rows: softmax, norms, rotary embeddings. */
import { asRows, reshaped, type VjpRules } from './rule.ts';

export const NORMALISATION_RULES: VjpRules = {
  // dx = y (d − Σ d y)
  softmax: ({ g, output: y, d }) => {
    const weighted = g.mul(d, y);
    return [g.sub(weighted, g.mul(y, g.sum(weighted, [y.shape.length - 1], true)))];
  },
  // dx = d − eʸ Σ d
  log_softmax: ({ g, output: y, d }) => [g.sub(d, g.mul(g.exp(y), g.sum(d, [y.shape.length - 1], true)))],
  // With r = 1/√(mean(x²) + ε), n = x r:  dx = r (d w − n · mean(d w n)),  dw = Σ_rows d n
  rms_norm: ({ g, node, inputs, d, needs }) => {
    const [x, weight] = [inputs[0]!, inputs[1]!];
    const width = x.shape.at(-1)!;
    const last = [x.shape.length - 1];
    const mean = (v: typeof x) => g.mul(g.sum(v, last, true), g.scalar(1 / width));
    const inverse = g.reciprocal(g.sqrt(g.add(mean(g.mul(x, x)), g.scalar(node.attributes.eps))));
    const normed = g.mul(x, inverse);
    const gradX = () => {
      const scaled = g.mul(d, weight);
      return g.mul(inverse, g.sub(scaled, g.mul(normed, mean(g.mul(scaled, normed)))));
    };
    const gradWeight = () => g.sum(asRows(g, g.mul(d, normed)), [0]);
    return [needs(0) ? gradX() : undefined, needs(1) ? gradWeight() : undefined];
  },
  // A rotation: its transpose turns back by the same angles.
  rope: ({ g, node, inputs, d, needs }) => {
    const [x, cos, sin] = [inputs[0]!, inputs[1]!, inputs[2]!];
    const { heads } = node.attributes;
    const [rows, half] = [cos.shape[0]!, cos.shape[1]!];
    const halves = (v: typeof x) => {
      const split = g.reshape(v, [rows, heads, 2, half]);
      return [0, 1].map((i) => g.slice(split, 2, i, i + 1)) as [typeof x, typeof x];
    };
    const overHeads = (v: typeof x) => reshaped(g, g.sum(v, [1, 2]), cos.shape);
    const gradAngles = () => {
      const [x1, x2] = halves(x);
      const [d1, d2] = halves(d);
      return [overHeads(g.add(g.mul(d1, x1), g.mul(d2, x2))), overHeads(g.sub(g.mul(d2, x1), g.mul(d1, x2)))] as const;
    };
    const [gradCos, gradSin] = needs(1) || needs(2) ? gradAngles() : [undefined, undefined];
    return [needs(0) ? g.rope(d, cos, g.neg(sin), heads) : undefined, gradCos, gradSin];
  },
};
