/** @file VJP rules of movement ops and reductions. */
import { keptShape, reshaped, unbroadcast, type VjpRules } from './rule.ts';

export const MOVEMENT_RULES: VjpRules = {
  reshape: ({ g, inputs: [x], d }) => [g.reshape(d, x!.shape)],
  transpose: ({ g, node, d }) => {
    const { permutation } = node.attributes;
    return [
      g.transpose(
        d,
        permutation.map((_, i) => permutation.indexOf(i)),
      ),
    ];
  },
  slice: ({ node, d }) => [{ part: d, ...node.attributes }],
  concat: ({ g, node, inputs, d, needs }) => {
    const { axis } = node.attributes;
    let end = 0;
    return inputs.map((x, i) => {
      const start = end;
      end += x.shape[axis]!;
      return needs(i) ? g.slice(d, axis, start, end) : undefined;
    });
  },
  pad: ({ g, node, inputs: [x], d }) => {
    const { axis, before } = node.attributes;
    return [g.slice(d, axis, before, before + x!.shape[axis]!)];
  },
  broadcast_to: ({ g, inputs: [x], d }) => [unbroadcast(g, d, x!.shape)],
  sum: ({ g, node, inputs: [x], d }) => [
    g.broadcastTo(reshaped(g, d, keptShape(x!.shape, node.attributes.axes)), x!.shape),
  ],
  // Elements that tie for the maximum share d evenly, as torch.amax does.
  max: ({ g, node, inputs: [x], output, d }) => {
    const { axes } = node.attributes;
    const kept = keptShape(x!.shape, axes);
    const isMax = g.cast(g.equal(x!, g.broadcastTo(reshaped(g, output, kept), x!.shape)), 'float32');
    return [g.mul(isMax, g.div(reshaped(g, d, kept), g.sum(isMax, axes, true)))];
  },
};
