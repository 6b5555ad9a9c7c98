/** @file A compiled graph: a list of calls, with what can be let go after each. */
import { messageOf, RunError } from '@frame-thinker/core';
import { checkInputs, emptyTensor, findOutputs, nodeLabel } from '@frame-thinker/engine-common';
import {
  type Graph,
  GraphError,
  type GraphNode,
  type Program,
  type Shape,
  sizeOf,
  type Tensor,
  type TypedArray,
} from '@frame-thinker/graph';
import { LOWERINGS } from './lowerings/index.ts';
import type { Call, LoweredOp, Lowering } from './lowerings/lowering.ts';
import type { Tfjs, TfTensor } from './tfjs.ts';

/** What a node's value comes from. */
type Source =
  | { readonly kind: 'input' | 'parameter'; readonly name: string }
  | { readonly kind: 'constant'; readonly tensor: TfTensor }
  | { readonly kind: 'call'; readonly call: Call };

interface Step {
  readonly node: GraphNode;
  readonly source: Source;
  /** Values read; undefined where one has no elements. */
  readonly reads: readonly (number | undefined)[];
  /** Values of calls and inputs that no later step reads. */
  readonly frees: readonly number[];
}

const WASM_DIMENSIONS = 6;

export interface ProgramParts {
  tf: Tfjs;
  graph: Graph;
  label: string;
  /** The current tensor of a parameter; not the program's to dispose. */
  weight(name: string, shape: Shape): TfTensor;
  /** Makes the engine's backend the current one. */
  enter(): void;
  /** Called once, at release. */
  onRelease(): void;
}

/** Lowers every node that has elements. Returns sources by node id, and which value each node's really is. */
class Lowered {
  readonly sources: (Source | undefined)[] = [];
  /** The id of the value that a node gives on unchanged, else its own. */
  readonly values: number[] = [];
  readonly #constants: TfTensor[] = [];
  readonly #parts: ProgramParts;

  constructor(parts: ProgramParts) {
    this.#parts = parts;
    for (const node of parts.graph.nodes) this.#lower(node);
  }

  readonly #constant = (data: TypedArray, shape: Shape): TfTensor => {
    const { tf } = this.#parts;
    const dtype = data instanceof Float32Array ? 'float32' : data instanceof Int32Array ? 'int32' : 'bool';
    const tensor = tf.keep(tf.tensor(data, shape, dtype));
    this.#constants.push(tensor);
    return tensor;
  };

  #lower(node: GraphNode): void {
    const { tf, graph, label } = this.#parts;
    const { id, op, shape, dtype } = node;
    this.values[id] = id;
    if (sizeOf(shape) === 0) return;
    // Its kernels fail at more, and leave what was in memory as their result.
    if (tf.getBackend() === 'wasm' && shape.length > WASM_DIMENSIONS)
      throw new GraphError(
        `${label}: ${nodeLabel(node)}: ${shape.length} dimensions; the WebAssembly backend has at most ${WASM_DIMENSIONS}`,
      );
    if (op === 'input' || op === 'parameter') {
      this.sources[id] = { kind: op, name: (node as GraphNode<'input' | 'parameter'>).attributes.name };
      return;
    }
    if (op === 'constant') {
      this.sources[id] = {
        kind: 'constant',
        tensor: this.#constant((node as GraphNode<'constant'>).attributes.data, shape),
      };
      return;
    }
    const lowering = LOWERINGS[op as LoweredOp] as Lowering<LoweredOp> | undefined;
    if (!lowering) throw new GraphError(`${label}: ${nodeLabel(node)}: the tfjs engine has no lowering for it`);
    const call = lowering({
      tf,
      attributes: node.attributes as never,
      inputs: node.inputs.map((i) => graph.nodes[i]!),
      dtype,
      shape,
      constant: this.#constant,
    });
    if (call) this.sources[id] = { kind: 'call', call };
    else this.values[id] = this.values[node.inputs[0]!]!;
  }

  release(): void {
    for (const tensor of this.#constants) tensor.dispose();
  }
}

/** The steps that make some values, in order. */
function planSteps({ nodes }: Graph, { sources, values }: Lowered, ends: readonly number[]): Step[] {
  const needed = new Set(ends.map((id) => values[id]!));
  const kept = new Set(needed);
  const steps: Step[] = [];
  for (const node of nodes.toReversed()) {
    const source = sources[node.id];
    if (!source || !needed.has(node.id)) continue;
    const reads =
      source.kind === 'call' ? node.inputs.map((i) => (sizeOf(nodes[i]!.shape) > 0 ? values[i]! : undefined)) : [];
    const frees = new Set<number>();
    for (const id of reads) {
      if (id === undefined) continue;
      // Backwards: what is not needed yet is read last here.
      const { kind } = sources[id]!;
      if (!needed.has(id) && !kept.has(id) && (kind === 'call' || kind === 'input')) frees.add(id);
      needed.add(id);
    }
    steps.push({ node, source, reads, frees: [...frees] });
  }
  return steps.reverse();
}

/** @throws GraphError naming op and node for an op without lowering. */
export function createProgram(parts: ProgramParts): Program {
  const { tf, graph, label, weight, enter, onRelease } = parts;
  enter();
  const lowered = new Lowered(parts);
  const inputs = new Map(
    graph.nodes.flatMap((node) =>
      node.op === 'input' ? [[(node as GraphNode<'input'>).attributes.name, node] as const] : [],
    ),
  );
  const plans = new Map<string, Step[]>();
  const plan = (ends: readonly number[]): Step[] => {
    const key = ends.join();
    const steps = plans.get(key) ?? planSteps(graph, lowered, ends);
    plans.set(key, steps);
    return steps;
  };

  const makeValue = (
    { node, source, reads }: Step,
    values: readonly (TfTensor | undefined)[],
    given: Readonly<Record<string, Tensor>>,
  ): TfTensor => {
    switch (source.kind) {
      case 'constant':
        return source.tensor;
      case 'parameter':
        return weight(source.name, node.shape);
      case 'input':
        return tf.tensor(given[source.name]!.data, node.shape, node.dtype);
      case 'call': {
        const operands = reads.map((id) => (id === undefined ? undefined : values[id])) as TfTensor[];
        try {
          return tf.tidy(() => source.call(...operands));
        } catch (error) {
          throw new RunError(`${label}: ${nodeLabel(node)}: ${messageOf(error)}`);
        }
      }
    }
  };

  /** Runs the steps; returns the data of the ends in memory of their own. */
  const execute = (ends: readonly number[], given: Readonly<Record<string, Tensor>>): TypedArray[] => {
    const values: (TfTensor | undefined)[] = [];
    for (const step of plan(ends)) {
      values[step.node.id] = makeValue(step, values, given);
      for (const id of step.frees) values[id]!.dispose();
    }
    return ends.map((id) => {
      const value = lowered.values[id]!;
      const data = values[value]!.dataSync();
      // The binding gives back the memory itself of a value that no kernel has made.
      return lowered.sources[value]!.kind === 'call' ? data : data.slice();
    });
  };
  let live = true;

  return {
    async run(given, names = [...graph.outputs.keys()]) {
      if (!live) throw new GraphError(`${label}: run after release`);
      checkInputs(label, inputs, given);
      const wanted = findOutputs(label, graph.outputs, names).map((id, i) => ({
        name: names[i]!,
        node: graph.nodes[id]!,
      }));
      const full = wanted.filter(({ node }) => sizeOf(node.shape) > 0);
      let made: TypedArray[] = [];
      enter();
      tf.tidy(() => {
        made = execute(
          full.map(({ node }) => node.id),
          given,
        );
        return undefined;
      });
      const results: Record<string, Tensor> = {};
      for (const { name, node } of wanted)
        if (sizeOf(node.shape) === 0) results[name] = emptyTensor(node.dtype, node.shape);
      for (const [i, { name, node }] of full.entries())
        results[name] = { dtype: node.dtype, shape: node.shape, data: made[i]! };
      return results;
    },
    async release() {
      if (!live) return;
      live = false;
      onRelease();
      lowered.release();
    },
  };
}
