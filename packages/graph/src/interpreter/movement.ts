/** @file Kernels of movement ops and reductions. */
import { sizeOf } from '../ops.ts';
import type { GraphNode, Shape } from '../types.ts';
import { keptShape } from '../vjp/rule.ts';
import { eachRow } from './broadcast.ts';
import type { Float64Tensor, Kernels } from './kernel.ts';

/** [product of the axes before, size, product of the axes after]. */
const around = (shape: Shape, axis: number): [outer: number, size: number, inner: number] => [
  sizeOf(shape.slice(0, axis)),
  shape[axis]!,
  sizeOf(shape.slice(axis + 1)),
];

/** Folds the reduced axes with `f`. */
const reduce =
  (initial: number, f: (sum: number, x: number) => number) =>
  (node: GraphNode<'sum' | 'max'>, inputs: readonly Float64Tensor[]) => {
    const { shape, data } = inputs[0]!;
    const out = new Float64Array(sizeOf(node.shape)).fill(initial);
    const kept = keptShape(shape, node.attributes.axes);
    eachRow(shape, [kept], (offset, length, starts, steps) => {
      for (let k = 0; k < length; k++) {
        const at = starts[0]! + k * steps[0]!;
        out[at] = f(out[at]!, data[offset + k]!);
      }
    });
    return out;
  };

export const MOVEMENT_KERNELS: Kernels<
  'reshape' | 'transpose' | 'slice' | 'concat' | 'pad' | 'broadcast_to' | 'sum' | 'max'
> = {
  reshape: (_, inputs) => inputs[0]!.data,
  transpose: (node, inputs) => {
    const { shape, data } = inputs[0]!;
    const strides = shape.map((_, i) => sizeOf(shape.slice(i + 1)));
    const steps = node.attributes.permutation.map((p) => strides[p]!);
    const out = new Float64Array(data.length);
    const position = new Array<number>(shape.length).fill(0);
    let from = 0;
    for (let to = 0; to < out.length; to++) {
      out[to] = data[from]!;
      for (let axis = position.length - 1; axis >= 0; axis--) {
        from += steps[axis]!;
        if (++position[axis]! < node.shape[axis]!) break;
        from -= steps[axis]! * node.shape[axis]!;
        position[axis] = 0;
      }
    }
    return out;
  },
  slice: (node, inputs) => {
    const { axis, start, end } = node.attributes;
    const [outer, size, inner] = around(inputs[0]!.shape, axis);
    const length = (end - start) * inner;
    const out = new Float64Array(outer * length);
    for (let o = 0; o < outer; o++) {
      const from = (o * size + start) * inner;
      out.set(inputs[0]!.data.subarray(from, from + length), o * length);
    }
    return out;
  },
  concat: (node, inputs) => {
    const { axis } = node.attributes;
    const [outer, size, inner] = around(node.shape, axis);
    const out = new Float64Array(sizeOf(node.shape));
    let before = 0;
    for (const { shape, data } of inputs) {
      const length = shape[axis]! * inner;
      for (let o = 0; o < outer; o++) out.set(data.subarray(o * length, (o + 1) * length), o * size * inner + before);
      before += length;
    }
    return out;
  },
  pad: (node, inputs) => {
    const { axis, before } = node.attributes;
    const [outer, size, inner] = around(node.shape, axis);
    const length = inputs[0]!.shape[axis]! * inner;
    const out = new Float64Array(sizeOf(node.shape));
    for (let o = 0; o < outer; o++)
      out.set(inputs[0]!.data.subarray(o * length, (o + 1) * length), (o * size + before) * inner);
    return out;
  },
  broadcast_to: (node, inputs) => {
    const { shape, data } = inputs[0]!;
    const out = new Float64Array(sizeOf(node.shape));
    eachRow(node.shape, [shape], (offset, length, starts, steps) => {
      for (let k = 0; k < length; k++) out[offset + k] = data[starts[0]! + k * steps[0]!]!;
    });
    return out;
  },
  sum: reduce(0, (sum, x) => sum + x),
  max: reduce(Number.NEGATIVE_INFINITY, Math.max),
};
