/** @file Runs a graph in float64: the reference that engines are compared with. */
import { GraphError } from '../error.ts';
import { type OpName, sameShape, sizeOf } from '../ops.ts';
import type { DType, Graph, GraphNode, Shape } from '../types.ts';
import { ELEMENTWISE_KERNELS } from './elementwise.ts';
import { INDEXING_KERNELS } from './indexing.ts';
import type { Float64Tensor, Kernel, Kernels } from './kernel.ts';
import { LINALG_KERNELS } from './linalg.ts';
import { MOVEMENT_KERNELS } from './movement.ts';
import { NORMALISATION_KERNELS } from './normalisation.ts';

type Leaf = 'input' | 'parameter' | 'constant';
const KERNELS: Kernels<Exclude<OpName, Leaf>> = {
  ...ELEMENTWISE_KERNELS,
  ...MOVEMENT_KERNELS,
  ...LINALG_KERNELS,
  ...INDEXING_KERNELS,
  ...NORMALISATION_KERNELS,
};

/** What `interpret` takes: a Tensor, or one with float64 data. */
export interface TensorLike {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: ArrayLike<number>;
}

/** The tensor of a leaf by name, after checking that it is what the graph was made for. */
function bound(node: GraphNode<'input' | 'parameter'>, given: Readonly<Record<string, TensorLike>>): Float64Array {
  const { name } = node.attributes;
  const tensor = Object.hasOwn(given, name) ? given[name] : undefined;
  if (!tensor) throw new GraphError(`${node.op} ${name}: not given`);
  if (tensor.dtype !== node.dtype || !sameShape(tensor.shape, node.shape))
    throw new GraphError(
      `${node.op} ${name}: is ${tensor.dtype} [${tensor.shape.join(', ')}], must be ${node.dtype} [${node.shape.join(', ')}]`,
    );
  if (tensor.data.length !== sizeOf(node.shape))
    throw new GraphError(`${node.op} ${name}: ${tensor.data.length} values for [${node.shape.join(', ')}]`);
  return tensor.data instanceof Float64Array ? tensor.data : Float64Array.from(tensor.data);
}

function evaluate(
  node: GraphNode,
  values: readonly (Float64Tensor | undefined)[],
  given: Readonly<Record<'input' | 'parameter', Readonly<Record<string, TensorLike>>>>,
): Float64Array {
  if (node.op === 'input' || node.op === 'parameter')
    return bound(node as GraphNode<'input' | 'parameter'>, given[node.op]);
  if (node.op === 'constant') return Float64Array.from((node as GraphNode<'constant'>).attributes.data);
  const kernel = KERNELS[node.op] as Kernel<OpName>;
  return kernel(
    node,
    node.inputs.map((i) => values[i]!),
  );
}

/**
 * Runs a graph.
 * @param inputs by input name, with the graph's dtypes and shapes
 * @param parameters by parameter name
 * @param wanted names of outputs; default all
 * @throws GraphError on a missing or ill-shaped tensor and on an index out of range
 */
export function interpret(
  graph: Graph,
  inputs: Readonly<Record<string, TensorLike>>,
  parameters: Readonly<Record<string, TensorLike>> = {},
  wanted: readonly string[] = [...graph.outputs.keys()],
): Record<string, Float64Tensor> {
  const ends = wanted.map((name) => {
    const id = graph.outputs.get(name);
    if (id === undefined) throw new GraphError(`output ${name}: the graph has ${[...graph.outputs.keys()].join(', ')}`);
    return [name, id] as const;
  });
  // The last node that reads each value, so that memory is let go on the way; undefined: not needed.
  const lastUse = new Map<number, number>(ends.map(([, id]) => [id, Number.POSITIVE_INFINITY]));
  for (const node of graph.nodes.toReversed())
    if (lastUse.has(node.id)) for (const i of node.inputs) if (!lastUse.has(i)) lastUse.set(i, node.id);
  const values: (Float64Tensor | undefined)[] = [];
  for (const node of graph.nodes) {
    if (!lastUse.has(node.id)) continue;
    const { dtype, shape } = node;
    values[node.id] = { dtype, shape, data: evaluate(node, values, { input: inputs, parameter: parameters }) };
    for (const i of node.inputs) if (lastUse.get(i) === node.id) values[i] = undefined;
  }
  return Object.fromEntries(ends.map(([name, id]) => [name, values[id]!]));
}
