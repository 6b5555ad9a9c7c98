/** @file Builds graphs: one method an op, shapes checked as they are made. */
import { GraphError } from './error.ts';
import { type OpAttributes, type OpName, SHAPE_RULES, sizeOf } from './ops.ts';
import type { DType, Graph, GraphNode, Shape, Value } from './types.ts';

type RuleOp = keyof typeof SHAPE_RULES;

export class GraphBuilder {
  readonly nodes: GraphNode[] = [];
  readonly #outputs = new Map<string, number>();
  readonly #named = new Map<string, Value>();
  readonly #constants = new Map<string, Value>();
  #scope = '';

  /** Runs `build` with `name` appended to the scope that error messages show. */
  scope<T>(name: string, build: () => T): T {
    const outer = this.#scope;
    this.#scope = outer ? `${outer}.${name}` : name;
    try {
      return build();
    } finally {
      this.#scope = outer;
    }
  }

  #push<Name extends OpName>(
    op: Name,
    inputs: readonly Value[],
    attributes: OpAttributes[Name],
    type: { dtype: DType; shape: Shape },
  ): Value {
    const id = this.nodes.length;
    this.nodes.push({ id, op, inputs: inputs.map((v) => v.id), attributes, ...type, scope: this.#scope } as GraphNode);
    return { id, ...type };
  }

  /** Adds any op by name; what autodiff and passes use. Throws GraphError naming op and scope. */
  op<Name extends RuleOp>(op: Name, inputs: readonly Value[], attributes: OpAttributes[Name]): Value {
    const rule = SHAPE_RULES[op] as (
      inputs: readonly Value[],
      attributes: OpAttributes[Name],
    ) => { dtype: DType; shape: Shape };
    try {
      return this.#push(op, inputs, attributes, rule(inputs, attributes));
    } catch (error) {
      if (error instanceof GraphError && this.#scope) throw new GraphError(`${error.message} (in ${this.#scope})`);
      throw error;
    }
  }

  #once(kind: 'input' | 'parameter', name: string, dtype: DType, shape: Shape): Value {
    const known = this.#named.get(name);
    if (!known) {
      const value = this.#push(kind, [], { name }, { dtype, shape });
      this.#named.set(name, value);
      return value;
    }
    if (this.nodes[known.id]!.op !== kind || known.dtype !== dtype || known.shape.join() !== shape.join())
      throw new GraphError(`${kind} ${name}: made again with another type`);
    return known;
  }
  input(name: string, dtype: DType, shape: Shape): Value {
    return this.#once('input', name, dtype, shape);
  }
  parameter(name: string, shape: Shape): Value {
    return this.#once('parameter', name, 'float32', shape);
  }
  constant(data: Float32Array | Int32Array | Uint8Array, shape: Shape): Value {
    if (data.length !== sizeOf(shape))
      throw new GraphError(`constant: ${data.length} values for [${shape.join(', ')}]`);
    const dtype = data instanceof Float32Array ? 'float32' : data instanceof Int32Array ? 'int32' : 'bool';
    return this.#push('constant', [], { data }, { dtype, shape });
  }
  /** A float32 scalar constant of shape [], shared. */
  scalar(x: number): Value {
    const key = `${x}`;
    const known = this.#constants.get(key) ?? this.constant(Float32Array.of(x), []);
    this.#constants.set(key, known);
    return known;
  }
  output(name: string, value: Value): void {
    if (this.#outputs.has(name)) throw new GraphError(`output ${name}: named twice`);
    this.#outputs.set(name, value.id);
  }

  neg(x: Value): Value {
    return this.op('neg', [x], {});
  }
  exp(x: Value): Value {
    return this.op('exp', [x], {});
  }
  log(x: Value): Value {
    return this.op('log', [x], {});
  }
  sqrt(x: Value): Value {
    return this.op('sqrt', [x], {});
  }
  reciprocal(x: Value): Value {
    return this.op('reciprocal', [x], {});
  }
  sigmoid(x: Value): Value {
    return this.op('sigmoid', [x], {});
  }
  silu(x: Value): Value {
    return this.op('silu', [x], {});
  }
  gelu(x: Value): Value {
    return this.op('gelu', [x], {});
  }
  erf(x: Value): Value {
    return this.op('erf', [x], {});
  }
  tanh(x: Value): Value {
    return this.op('tanh', [x], {});
  }
  add(a: Value, b: Value): Value {
    return this.op('add', [a, b], {});
  }
  sub(a: Value, b: Value): Value {
    return this.op('sub', [a, b], {});
  }
  mul(a: Value, b: Value): Value {
    return this.op('mul', [a, b], {});
  }
  div(a: Value, b: Value): Value {
    return this.op('div', [a, b], {});
  }
  maximum(a: Value, b: Value): Value {
    return this.op('maximum', [a, b], {});
  }
  minimum(a: Value, b: Value): Value {
    return this.op('minimum', [a, b], {});
  }
  lessEqual(a: Value, b: Value): Value {
    return this.op('less_equal', [a, b], {});
  }
  equal(a: Value, b: Value): Value {
    return this.op('equal', [a, b], {});
  }
  where(condition: Value, a: Value, b: Value): Value {
    return this.op('where', [condition, a, b], {});
  }
  cast(x: Value, to: DType): Value {
    return this.op('cast', [x], { to });
  }
  reshape(x: Value, shape: Shape): Value {
    return this.op('reshape', [x], { shape });
  }
  transpose(x: Value, permutation: readonly number[]): Value {
    return this.op('transpose', [x], { permutation });
  }
  slice(x: Value, axis: number, start: number, end: number): Value {
    return this.op('slice', [x], { axis, start, end });
  }
  concat(parts: readonly Value[], axis: number): Value {
    return this.op('concat', parts, { axis });
  }
  pad(x: Value, axis: number, before: number, after: number): Value {
    return this.op('pad', [x], { axis, before, after });
  }
  broadcastTo(x: Value, shape: Shape): Value {
    return this.op('broadcast_to', [x], { shape });
  }
  sum(x: Value, axes: readonly number[], keepDims = false): Value {
    return this.op('sum', [x], { axes, keepDims });
  }
  max(x: Value, axes: readonly number[], keepDims = false): Value {
    return this.op('max', [x], { axes, keepDims });
  }
  matmul(a: Value, b: Value, { transposeA = false, transposeB = false } = {}): Value {
    return this.op('matmul', [a, b], { transposeA, transposeB });
  }
  gatherRows(table: Value, indices: Value): Value {
    return this.op('gather_rows', [table, indices], {});
  }
  scatterAddRows(updates: Value, indices: Value, rows: number): Value {
    return this.op('scatter_add_rows', [updates, indices], { rows });
  }
  takeAlongLast(x: Value, indices: Value): Value {
    return this.op('take_along_last', [x, indices], {});
  }
  scatterAddLast(updates: Value, indices: Value, size: number): Value {
    return this.op('scatter_add_last', [updates, indices], { size });
  }
  softmax(x: Value): Value {
    return this.op('softmax', [x], {});
  }
  logSoftmax(x: Value): Value {
    return this.op('log_softmax', [x], {});
  }
  rmsNorm(x: Value, weight: Value, eps: number): Value {
    return this.op('rms_norm', [x, weight], { eps });
  }
  rope(x: Value, cos: Value, sin: Value, heads: number): Value {
    return this.op('rope', [x, cos, sin], { heads });
  }

  /** The graph: only what its outputs need is kept (nodes are renumbered), plus every input and parameter that was made. */
  build(): Graph {
    const needed = new Set<number>(this.#outputs.values());
    for (const value of this.#named.values()) needed.add(value.id);
    for (let id = this.nodes.length - 1; id >= 0; id--)
      if (needed.has(id)) for (const input of this.nodes[id]!.inputs) needed.add(input);
    const renumbered = new Map<number, number>();
    const nodes: GraphNode[] = [];
    for (const node of this.nodes) {
      if (!needed.has(node.id)) continue;
      renumbered.set(node.id, nodes.length);
      nodes.push({ ...node, id: nodes.length, inputs: node.inputs.map((i) => renumbered.get(i)!) });
    }
    return { nodes, outputs: new Map([...this.#outputs].map(([name, id]) => [name, renumbered.get(id)!])) };
  }
}
