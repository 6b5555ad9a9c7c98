/** @file The interpreter as an Engine: slow, exact, for tests. Results are rounded to float32 at the end only. */
import { GraphError } from './error.ts';
import { interpret } from './interpreter/interpret.ts';
import type { Float64Tensor } from './interpreter/kernel.ts';
import { ReferenceParameters } from './reference-parameters.ts';
import type { Engine, Graph, GraphNode, ParameterSet, Program, Tensor } from './types.ts';

function narrow({ dtype, shape, data }: Float64Tensor): Tensor {
  const Type = { float32: Float32Array, int32: Int32Array, bool: Uint8Array }[dtype];
  return { dtype, shape, data: Type.from(data) };
}

/** The current weights of the parameters that a graph names. */
function weightsOf(graph: Graph, parameters: ParameterSet | undefined, label: string): Record<string, Tensor> {
  const weights: Record<string, Tensor> = {};
  for (const node of graph.nodes) {
    if (node.op !== 'parameter') continue;
    const { name } = (node as GraphNode<'parameter'>).attributes;
    if (!parameters) throw new GraphError(`${label}: parameter ${name} needs options.parameters`);
    weights[name] = { dtype: 'float32', shape: node.shape, data: parameters.read(name) };
  }
  return weights;
}

/** The reference engine, on the float64 interpreter. */
export function referenceEngine(): Engine {
  return {
    capabilities: { name: 'reference', provider: 'cpu', fp16: false, residentParameters: false },
    compile: async (graph, { parameters, frozen = false, label = 'graph' } = {}): Promise<Program> => {
      const baked = frozen ? weightsOf(graph, parameters, label) : undefined;
      return {
        run: async (inputs, outputs) => {
          const weights = baked ?? weightsOf(graph, parameters, label);
          const results = interpret(graph, inputs, weights, outputs);
          return Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, narrow(tensor)]));
        },
        release: async () => {},
      };
    },
    parameters: (specs) => new ReferenceParameters(specs),
    release: async () => {},
  };
}
