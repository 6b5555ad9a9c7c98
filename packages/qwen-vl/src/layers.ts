/** @file What the vision tower and the decoder share: parameters by name, linear layers, gated MLP, attention core. */
import { InvariantError } from '@frame-thinker/core';
import type { GraphBuilder, Shape, Value } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { parameterSpecs } from './names.ts';

/** Parameters of the model in one graph. */
export interface Weights {
  parameter(name: string): Value;
  /** x [T, in] · W^T (+ bias) of `<name>.weight` [out, in], `<name>.bias`. */
  linear(x: Value, name: string, options?: { bias?: boolean }): Value;
}

export function createWeights(g: GraphBuilder, config: QwenVLConfig): Weights {
  const shapes = new Map<string, Shape>(parameterSpecs(config).map(({ name, shape }) => [name, shape]));
  const parameter = (name: string): Value => {
    const shape = shapes.get(name);
    if (!shape) throw new InvariantError(`the model has no parameter ${name}`);
    return g.parameter(name, shape);
  };
  return {
    parameter,
    linear: (x, name, { bias = false } = {}) => {
      const y = g.matmul(x, parameter(`${name}.weight`), { transposeB: true });
      return bias ? g.add(y, parameter(`${name}.bias`)) : y;
    },
  };
}

/** SwiGLU: down(silu(gate(x)) · up(x)). */
export function gatedMlp(
  g: GraphBuilder,
  weights: Weights,
  x: Value,
  name: string,
  options: { bias?: boolean } = {},
): Value {
  const gate = g.silu(weights.linear(x, `${name}.gate_proj`, options));
  return weights.linear(g.mul(gate, weights.linear(x, `${name}.up_proj`, options)), `${name}.down_proj`, options);
}

/** [rows · length, heads · headDim] → [rows, heads, length, headDim]. */
export function splitHeads(g: GraphBuilder, x: Value, rows: number, length: number, heads: number): Value {
  const headDim = x.shape[1]! / heads;
  if (length === 1) return g.reshape(x, [rows, heads, 1, headDim]);
  return g.transpose(g.reshape(x, [rows, length, heads, headDim]), [0, 2, 1, 3]);
}
