/** @file Reverse-mode autodiff on the graph: emits the backward pass as ordinary nodes. The rules are in vjp/. */
import type { GraphBuilder } from './builder.ts';
import { GraphError } from './error.ts';
import { type OpName, sameShape } from './ops.ts';
import { joinSlices } from './slice-cotangents.ts';
import type { GraphNode, Value } from './types.ts';
import { VJP_RULES } from './vjp/index.ts';
import type { SliceCotangent, VjpRule } from './vjp/rule.ts';

const asValue = ({ id, dtype, shape }: GraphNode): Value => ({ id, dtype, shape });

/** Which nodes depend on one of `wrt` through floats: only those carry cotangents. */
function reaching(nodes: readonly GraphNode[], wrt: readonly Value[]): boolean[] {
  const asked = new Set(wrt.map((v) => v.id));
  const reaches: boolean[] = [];
  for (const { id, dtype, inputs } of nodes)
    reaches.push(dtype === 'float32' && (asked.has(id) || inputs.some((i) => reaches[i])));
  return reaches;
}

/** Sums what arrived at one value. */
function total(g: GraphBuilder, value: Value, arrived: readonly (Value | SliceCotangent)[]): Value {
  const whole: Value[] = [];
  const byAxis = new Map<number, SliceCotangent[]>();
  for (const cotangent of arrived) {
    if (!('part' in cotangent)) whole.push(cotangent);
    else byAxis.set(cotangent.axis, [...(byAxis.get(cotangent.axis) ?? []), cotangent]);
  }
  for (const [axis, pieces] of byAxis) whole.push(joinSlices(g, pieces, value.shape[axis]!));
  return whole.reduce((sum, d) => g.add(sum, d));
}

function check(wrt: readonly Value[], pairs: readonly { output: Value; cotangent: Value }[]): void {
  for (const { output, cotangent } of pairs)
    if (output.dtype !== 'float32' || cotangent.dtype !== 'float32' || !sameShape(output.shape, cotangent.shape))
      throw new GraphError(
        `gradients: output ${output.id} is ${output.dtype} [${output.shape.join(', ')}], its cotangent ${cotangent.dtype} [${cotangent.shape.join(', ')}]`,
      );
  for (const { id, dtype } of wrt)
    if (dtype !== 'float32') throw new GraphError(`gradients: value ${id} is ${dtype}, only float32 has a gradient`);
}

/**
 * Adds to the builder the nodes of the vector-Jacobian product: for each of `wrt` the gradient of Σ_k ⟨output_k, cotangent_k⟩.
 * Only what lies between `wrt` and the outputs is differentiated.
 * Gradients of values that the outputs do not depend on are zeros of their shape.
 * @param pairs outputs with their cotangents (same shape, float32)
 * @throws GraphError naming op, node and scope when a rule is missing.
 */
export function gradients(
  g: GraphBuilder,
  pairs: readonly { output: Value; cotangent: Value }[],
  wrt: readonly Value[],
): Value[] {
  check(wrt, pairs);
  const forward = g.nodes.slice();
  const reaches = reaching(forward, wrt);
  const arrived = new Map<number, (Value | SliceCotangent)[]>();
  const send = (id: number, cotangent: Value | SliceCotangent) => {
    const known = arrived.get(id);
    if (known) known.push(cotangent);
    else arrived.set(id, [cotangent]);
  };
  for (const { output, cotangent } of pairs) if (reaches[output.id]) send(output.id, cotangent);

  const asked = new Set(wrt.map((v) => v.id));
  const cotangents = new Map<number, Value>();
  for (const node of forward.toReversed()) {
    const parts = arrived.get(node.id);
    if (!parts) continue;
    arrived.delete(node.id);
    g.scope(node.scope ? `${node.scope}.vjp` : 'vjp', () => {
      const d = total(g, asValue(node), parts);
      if (asked.has(node.id)) cotangents.set(node.id, d);
      if (!node.inputs.some((i) => reaches[i])) return;
      const rule = VJP_RULES[node.op] as VjpRule<OpName> | undefined;
      if (!rule)
        throw new GraphError(`autodiff: op ${node.op} has no VJP rule (node ${node.id}, scope '${node.scope}')`);
      const inputs = node.inputs.map((i) => asValue(forward[i]!));
      const needs = (i: number) => reaches[node.inputs[i]!] === true;
      const sent = rule({ g, node, inputs, output: asValue(node), d, needs });
      sent.forEach((cotangent, i) => {
        if (cotangent && needs(i)) send(node.inputs[i]!, cotangent);
      });
    });
  }
  return wrt.map((v) => cotangents.get(v.id) ?? g.broadcastTo(g.scalar(0), v.shape));
}
