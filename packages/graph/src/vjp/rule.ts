/** @file What a vector-Jacobian rule gets and gives, and what the rules share. */
import type { GraphBuilder } from '../builder.ts';
import { type OpName, sizeOf } from '../ops.ts';
import type { GraphNode, Shape, Value } from '../types.ts';

/** A cotangent of [start, end) of a value along one axis; zero elsewhere. Autodiff joins those of one value. */
export interface SliceCotangent {
  readonly part: Value;
  readonly axis: number;
  readonly start: number;
  readonly end: number;
}

export interface VjpContext<Name extends OpName> {
  g: GraphBuilder;
  node: GraphNode<Name>;
  inputs: readonly Value[];
  output: Value;
  /** The cotangent of the output, of its shape. */
  d: Value;
  /** Does input i reach what the gradient is asked for? Only then its cotangent is used. */
  needs(i: number): boolean;
}

/** The cotangents of the inputs, in order; undefined where not needed or not differentiable (indices, conditions). */
export type VjpRule<Name extends OpName> = (
  context: VjpContext<Name>,
) => readonly (Value | SliceCotangent | undefined)[];
export type VjpRules = { readonly [Name in OpName]?: VjpRule<Name> };

/** Sums a cotangent over the axes along which an operand of `shape` was broadcast. */
export function unbroadcast(g: GraphBuilder, d: Value, shape: Shape): Value {
  const lead = d.shape.length - shape.length;
  const axes = d.shape.flatMap((size, i) => (i < lead || (shape[i - lead] === 1 && size !== 1) ? [i] : []));
  return reshaped(g, axes.length > 0 ? g.sum(d, axes) : d, shape);
}

/** reshape, unless the shape is that already. */
export function reshaped(g: GraphBuilder, x: Value, shape: Shape): Value {
  return x.shape.length === shape.length && x.shape.every((size, i) => size === shape[i]) ? x : g.reshape(x, shape);
}

/** The shape after a reduction with keepDims. */
export function keptShape(shape: Shape, axes: readonly number[]): Shape {
  return shape.map((size, i) => (axes.includes(i) ? 1 : size));
}

/** [leading axes as one, last axis]. */
export function asRows(g: GraphBuilder, x: Value): Value {
  const last = x.shape.at(-1)!;
  return reshaped(g, x, [sizeOf(x.shape.slice(0, -1)), last]);
}
