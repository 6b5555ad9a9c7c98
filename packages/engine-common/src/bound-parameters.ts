/** @file What engines need of the parameter sets here beside the public interface, and the check of a graph against a set. */
import { type Graph, GraphError, type GraphNode, type ParameterSet } from '@frame-thinker/graph';

export interface BoundParameters extends ParameterSet {
  /** The weights themselves, no copy; they change with every write and step. @throws when there are none to give. */
  view(name: string): Float32Array;
}

function isBound(parameters: ParameterSet): parameters is BoundParameters {
  return 'view' in parameters;
}

/** @throws GraphError when a parameter that the graph names is not in the set, or has another shape. */
export function bindParameters(
  graph: Graph,
  parameters: ParameterSet | undefined,
  label: string,
): BoundParameters | undefined {
  const specs = new Map(parameters?.specs.map((spec) => [spec.name, spec]));
  for (const node of graph.nodes) {
    if (node.op !== 'parameter') continue;
    const { name } = (node as GraphNode<'parameter'>).attributes;
    const spec = specs.get(name);
    if (!spec) throw new GraphError(`${label}: parameter ${name} is not in the given parameters`);
    if (spec.shape.join() !== node.shape.join())
      throw new GraphError(
        `${label}: parameter ${name} is [${spec.shape.join(', ')}], the graph has it as [${node.shape.join(', ')}]`,
      );
  }
  if (parameters && !isBound(parameters)) throw new GraphError(`${label}: the parameters are another engine's`);
  return parameters;
}
