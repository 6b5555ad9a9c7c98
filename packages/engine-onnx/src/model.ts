/** @file From a graph to an ONNX model. */
import { InputError } from '@frame-thinker/core';
import { nodeLabel } from '@frame-thinker/engine-common';
import { type DType, type Graph, GraphError, type GraphNode, type Shape, sizeOf } from '@frame-thinker/graph';
import { LOWERINGS } from './lowerings/index.ts';
import type { LoweredOp, Lowering, Operand } from './lowerings/lowering.ts';
import { ModelEmitter } from './model-emitter.ts';

export interface Port {
  /** Name in the ONNX model. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

export interface OnnxModel {
  readonly bytes: Uint8Array;
  /** What run takes, by input name; `fed` is false where the model does not use it. */
  readonly inputs: ReadonlyMap<string, Port & { readonly fed: boolean }>;
  /** Parameters that are fed, by parameter name. */
  readonly parameters: ReadonlyMap<string, Port>;
  /** By output name. An output without elements has no port: there is nothing to compute. */
  readonly outputs: ReadonlyMap<string, { readonly dtype: DType; readonly shape: Shape; readonly port?: string }>;
}

export interface ModelOptions {
  /** In messages. */
  label: string;
  /** Weights to bake in, by parameter name; without it parameters are inputs of the model. */
  frozen?: (name: string) => Float32Array;
}

/** The transpose of a row-major matrix. */
function transposed(data: Float32Array, [rows, columns]: readonly [number, number]): Float32Array {
  const result = new Float32Array(data.length);
  // In square blocks: both sides stay in cache.
  const block = 32;
  for (let r0 = 0; r0 < rows; r0 += block)
    for (let c0 = 0; c0 < columns; c0 += block)
      for (let r = r0; r < Math.min(r0 + block, rows); r++)
        for (let c = c0; c < Math.min(c0 + block, columns); c++) result[c * rows + r] = data[r * columns + c]!;
  return result;
}

class ModelBuilder {
  readonly emit = new ModelEmitter();
  readonly #graph: Graph;
  readonly #frozen: ModelOptions['frozen'];
  /** ONNX name of each node's value, by node id; made at first use. */
  readonly #names: (string | undefined)[] = [];
  /** Names that no ONNX node makes. */
  readonly #given = new Set<string>();
  readonly inputs = new Map<string, Port & { fed: boolean }>();
  readonly parameters = new Map<string, Port>();

  constructor(graph: Graph, { frozen }: ModelOptions) {
    this.#graph = graph;
    this.#frozen = frozen;
  }

  #node(id: number): GraphNode {
    const node = this.#graph.nodes[id];
    if (!node) throw new GraphError(`graph has no node ${id}`);
    return node;
  }

  #give(name: string): string {
    this.#given.add(name);
    return name;
  }

  /** The name of a value that is bound, not computed. */
  #bind(node: GraphNode): string | undefined {
    const { dtype, shape } = node;
    if (node.op === 'input') {
      const { name } = (node as GraphNode<'input'>).attributes;
      const port = `input:${name}`;
      this.inputs.set(name, { name: port, dtype, shape, fed: true });
      return this.#give(this.emit.input(port, dtype, shape));
    }
    if (node.op === 'parameter') {
      const { name } = (node as GraphNode<'parameter'>).attributes;
      const port = `parameter:${name}`;
      if (this.#frozen) return this.#give(this.emit.initializer(port, dtype, shape, this.#frozen(name)));
      this.parameters.set(name, { name: port, dtype, shape });
      return this.#give(this.emit.input(port, dtype, shape));
    }
    if (node.op === 'constant')
      return this.#give(this.emit.constant(dtype, shape, (node as GraphNode<'constant'>).attributes.data));
    return undefined;
  }

  #transposedWeight(id: number): string | undefined {
    const node = this.#node(id);
    if (!this.#frozen || node.op !== 'parameter' || node.shape.length !== 2) return undefined;
    const { name } = (node as GraphNode<'parameter'>).attributes;
    const port = `transposed:${name}`;
    if (this.#given.has(port)) return port;
    const [rows, columns] = node.shape as [number, number];
    const data = transposed(this.#frozen(name), [rows, columns]);
    return this.#give(this.emit.initializer(port, 'float32', [columns, rows], data));
  }

  /** Values are asked for in topological order by `lower`, so this does not recurse deeper than bound values. */
  #value(id: number): string {
    const known = this.#names[id];
    if (known !== undefined) return known;
    const name = this.#bind(this.#node(id));
    if (name === undefined) throw new GraphError(`${nodeLabel(this.#node(id))}: used before it is made`);
    this.#names[id] = name;
    return name;
  }

  #operand(id: number): Operand {
    const { dtype, shape } = this.#node(id);
    const value = (): string => this.#value(id);
    // Lazily: an operand that the lowering replaces (a transposed weight) or skips (an empty part) is not bound.
    return {
      get name() {
        return value();
      },
      dtype,
      shape,
    };
  }

  lower(node: GraphNode): void {
    if (node.op === 'input' || node.op === 'parameter' || node.op === 'constant' || sizeOf(node.shape) === 0) return;
    const lowering = LOWERINGS[node.op as LoweredOp] as Lowering<LoweredOp> | undefined;
    if (!lowering) throw new GraphError(`${nodeLabel(node)}: the onnx engine has no lowering for it`);
    this.emit.origin = `${node.scope}/${node.op}@${node.id}`;
    this.#names[node.id] = lowering({
      emit: this.emit,
      attributes: node.attributes as never,
      inputs: node.inputs.map((id) => this.#operand(id)),
      dtype: node.dtype,
      shape: node.shape,
      transposedWeight: (i) => this.#transposedWeight(node.inputs[i]!),
    });
  }

  /** Outputs are made by nodes: a bound value goes through one. */
  output(id: number): string {
    const name = this.#value(id);
    if (!this.#given.has(name)) return name;
    const made = this.emit.node('Identity', [name]);
    this.#names[id] = made;
    return made;
  }
}

/**
 * Lowers a graph. Values without elements are left out: nothing computes or feeds them.
 * @throws GraphError for an op without lowering; InputError when the constants and frozen weights are too large for one model.
 */
export function buildModel(graph: Graph, options: ModelOptions): OnnxModel {
  const builder = new ModelBuilder(graph, options);
  for (const node of graph.nodes) builder.lower(node);
  const outputs = new Map<string, { dtype: DType; shape: Shape; port?: string }>();
  const declared = new Set<string>();
  for (const [name, id] of graph.outputs) {
    const { dtype, shape } = graph.nodes[id]!;
    if (sizeOf(shape) === 0) {
      outputs.set(name, { dtype, shape });
      continue;
    }
    builder.emit.origin = `outputs/${name}`;
    const port = builder.output(id);
    if (!declared.has(port)) builder.emit.output(port, dtype, shape);
    declared.add(port);
    outputs.set(name, { dtype, shape, port });
  }
  for (const node of graph.nodes) {
    if (node.op !== 'input') continue;
    const { name } = (node as GraphNode<'input'>).attributes;
    if (!builder.inputs.has(name)) builder.inputs.set(name, { name, dtype: node.dtype, shape: node.shape, fed: false });
  }
  if (!builder.emit.fits)
    throw new InputError(
      `${options.label}: ${(builder.emit.bytes / 1e9).toFixed(1)} GB of ${options.frozen ? 'frozen weights and ' : ''}constants do not fit one ONNX model (2 GB); compile without frozen`,
    );
  return { bytes: builder.emit.encode(), inputs: builder.inputs, parameters: builder.parameters, outputs };
}
