/** @file Reverse-mode autodiff on the graph. The rules are in vjp.ts. */

import type { GraphBuilder } from './builder.ts';
import { GraphError } from './error.ts';
import type { Value } from './types.ts';

/**
 * Adds to the builder the nodes of the vector-Jacobian product: for each of `wrt` the gradient of Σ_k ⟨output_k, cotangent_k⟩.
 * Gradients of values that the outputs do not depend on are zeros of their shape.
 * @param pairs outputs with their cotangents (same shape, float32)
 * @throws GraphError naming op and node when a rule is missing.
 */
export function gradients(
  _g: GraphBuilder,
  _pairs: readonly { output: Value; cotangent: Value }[],
  _wrt: readonly Value[],
): Value[] {
  throw new GraphError('autodiff is not there yet');
}
