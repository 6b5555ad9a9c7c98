/** @file The tensor graph and the Engine interface that runs it. Shapes are static; one graph, one shape. */
import type { OpAttributes, OpName } from './ops.ts';

export type DType = 'float32' | 'int32' | 'bool';
export type Shape = readonly number[];

/** A value of a graph: what one node makes. `id` is the node's index in `Graph.nodes`. */
export interface Value {
  readonly id: number;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** One node; it has one output. Nodes stand in topological order. */
export interface GraphNode<Name extends OpName = OpName> {
  readonly id: number;
  readonly op: Name;
  readonly inputs: readonly number[];
  readonly attributes: OpAttributes[Name];
  readonly dtype: DType;
  readonly shape: Shape;
  /** Where in the model the node was made, e.g. `layers.3.attn` (builder scopes), for error messages. */
  readonly scope: string;
}

/** A whole graph. Inputs and parameters are nodes too (ops `input` and `parameter`); outputs are named values. */
export interface Graph {
  readonly nodes: readonly GraphNode[];
  readonly outputs: ReadonlyMap<string, number>;
}

export type TypedArray = Float32Array | Int32Array | Uint8Array;

/** float32 → Float32Array, int32 → Int32Array, bool → Uint8Array of 0 and 1. Row-major. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TypedArray;
}

export interface ParameterSpec {
  name: string;
  shape: Shape;
  /** Weight decay applies (matrices); false for biases and norms when the recipe says so. Default true. */
  decay?: boolean;
}

export interface EngineCapabilities {
  name: 'onnx' | 'tfjs' | 'reference';
  provider: string;
  /** Why something faster than the provider was passed over. */
  note?: string;
  fp16: boolean;
  residentParameters: boolean;
}

/** Runs graphs. One engine lives in one thread; everything is used from that thread. */
export interface Engine {
  readonly capabilities: EngineCapabilities;
  /**
   * Prepares a graph. Its `parameter` nodes are bound by name to `options.parameters`.
   * `frozen: true` bakes the current parameter values in (faster to run; stale after an update, so release and compile again).
   */
  compile(graph: Graph, options?: { parameters?: ParameterSet; frozen?: boolean; label?: string }): Promise<Program>;
  /** `training: false`: weights only, tensor by tensor, without moments and gradients (for large models). Default true. */
  parameters(specs: readonly ParameterSpec[], options?: { training?: boolean }): ParameterSet;
  release(): Promise<void>;
}

export interface Program {
  /** Runs the graph. `inputs` by input name, with the exact shapes. Returns the outputs asked for (default: all), in new memory. */
  run(inputs: Readonly<Record<string, Tensor>>, outputs?: readonly string[]): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

/** Weights, AdamW moments and a float64 gradient buffer. */
export interface ParameterSet {
  readonly specs: readonly ParameterSpec[];
  write(name: string, data: Float32Array): void;
  /** A copy of the weights (or of a moment). */
  read(name: string, kind?: 'weight' | 'exp_avg' | 'exp_avg_sq'): Float32Array;
  writeMoment(name: string, kind: 'exp_avg' | 'exp_avg_sq', data: Float32Array): void;
  readonly gradients: GradientBuffer;
  /** Steps done by adamw (its bias correction). */
  step: number;
  /** Counts changes of any weight; caches of anything computed from weights compare it. */
  readonly version: number;
  /** One decoupled AdamW step as torch.optim.AdamW does it, from the gradient buffer, which it zeroes. Skipped when the norm is not finite. */
  adamw(options: { lr: number; betas: readonly [number, number]; eps: number; weightDecay: number; maxNorm: number }): {
    gradNorm: number;
    applied: boolean;
  };
  release(): void;
}

/** Sums of gradients in float64, so that the order of micro-batches practically never shows. */
export interface GradientBuffer {
  accumulate(name: string, data: Float32Array): void;
  zero(): void;
  /** The sums, one flat array in the order of specs (a copy). */
  read(): Float64Array;
  /** Replaces the sums. */
  write(flat: Float64Array): void;
  /** The sum of one parameter (a copy). */
  get(name: string): Float64Array;
}
