/**
 * @file The op vocabulary with its shape rules. Kept small: an engine lowers every op here, autodiff has one rule an op.
 * Composite maths that engines have fast kernels for (rms_norm, rope, softmax) are single ops.
 */
import { GraphError } from './error.ts';
import type { DType, Shape } from './types.ts';

type None = Record<string, never>;

/** Attributes of every op. */
export interface OpAttributes {
  /** A value given at run time. */
  input: { name: string };
  /** A trained tensor, bound by name to a ParameterSet. */
  parameter: { name: string };
  /** Row-major data. */
  constant: { data: Float32Array | Int32Array | Uint8Array };
  // Elementwise, one operand (float32).
  neg: None;
  exp: None;
  log: None;
  sqrt: None;
  reciprocal: None;
  sigmoid: None;
  /** x · sigmoid(x) */
  silu: None;
  /** Exact GELU: x · Φ(x). */
  gelu: None;
  erf: None;
  tanh: None;
  // Elementwise, two operands, numpy broadcasting (float32).
  add: None;
  sub: None;
  mul: None;
  div: None;
  maximum: None;
  minimum: None;
  /** a <= b and a == b, to bool; both operands of one dtype. */
  less_equal: None;
  equal: None;
  /** (condition bool, a, b), all broadcast. */
  where: None;
  /** To another dtype (bool → 0/1; float32 → int32 truncates). */
  cast: { to: DType };
  // Movement.
  reshape: { shape: Shape };
  transpose: { permutation: readonly number[] };
  /** [start, end) along one axis. */
  slice: { axis: number; start: number; end: number };
  concat: { axis: number };
  /** Zeros before and after along one axis. */
  pad: { axis: number; before: number; after: number };
  broadcast_to: { shape: Shape };
  // Reductions (float32).
  sum: { axes: readonly number[]; keepDims: boolean };
  max: { axes: readonly number[]; keepDims: boolean };
  /** [..., M, K] x [..., K, N], transposes of the last two dims applied first; batch dims equal, or b has rank 2. */
  matmul: { transposeA: boolean; transposeB: boolean };
  // Indexing. Indices are int32 and in range (the interpreter checks).
  /** rows(table [V, ...], indices [...I]) → [...I, ...]. */
  gather_rows: None;
  /** (updates [...I, ...R], indices [...I]) → [rows, ...R]: zeros with the updates added at their rows. */
  scatter_add_rows: { rows: number };
  /** (x [..., V], indices [..., K]) → [..., K], along the last axis. */
  take_along_last: None;
  /** (updates [..., K], indices [..., K]) → [..., size]: zeros with the updates added along the last axis. */
  scatter_add_last: { size: number };
  // Normalised rows.
  softmax: None;
  log_softmax: None;
  /** (x [..., H], weight [H]): x / sqrt(mean(x²) + eps) · weight. */
  rms_norm: { eps: number };
  /**
   * (x [T, heads · headDim], cos [T, headDim / 2], sin [T, headDim / 2]): rotate-half rotary embedding of each head, with its
   * own angles a row: (x1, x2) → (x1 cos − x2 sin, x2 cos + x1 sin), x1 the first half of a head, x2 the second.
   */
  rope: { heads: number };
}

export type OpName = keyof OpAttributes;

const fail = (op: string, why: string): never => {
  throw new GraphError(`op ${op}: ${why}`);
};
const show = (shape: Shape): string => `[${shape.join(', ')}]`;

export function sizeOf(shape: Shape): number {
  return shape.reduce((a, b) => a * b, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

/** The numpy broadcast of two shapes. */
export function broadcastShapes(a: Shape, b: Shape, op = 'broadcast'): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) fail(op, `${show(a)} and ${show(b)} do not broadcast`);
    return x === 1 ? y : x;
  });
}

interface Typed {
  dtype: DType;
  shape: Shape;
}
type Rule<Attributes> = (inputs: readonly Typed[], attributes: Attributes) => Typed;
const float = (shape: Shape): Typed => ({ dtype: 'float32', shape });

function want(op: string, inputs: readonly Typed[], ...dtypes: (DType | 'any')[]): void {
  if (inputs.length !== dtypes.length) fail(op, `takes ${dtypes.length} inputs, got ${inputs.length}`);
  dtypes.forEach((dtype, i) => {
    if (dtype !== 'any' && inputs[i]!.dtype !== dtype) fail(op, `input ${i} must be ${dtype}, is ${inputs[i]!.dtype}`);
  });
}
const unary =
  (op: string): Rule<None> =>
  (inputs) => {
    want(op, inputs, 'float32');
    return float(inputs[0]!.shape);
  };
const binary =
  (op: string): Rule<None> =>
  (inputs) => {
    want(op, inputs, 'float32', 'float32');
    return float(broadcastShapes(inputs[0]!.shape, inputs[1]!.shape, op));
  };
const compare =
  (op: string): Rule<None> =>
  (inputs) => {
    want(op, inputs, 'any', 'any');
    if (inputs[0]!.dtype !== inputs[1]!.dtype) fail(op, 'operands differ in dtype');
    return { dtype: 'bool', shape: broadcastShapes(inputs[0]!.shape, inputs[1]!.shape, op) };
  };
const reduce =
  (op: string): Rule<OpAttributes['sum']> =>
  (inputs, { axes, keepDims }) => {
    want(op, inputs, 'float32');
    const { shape } = inputs[0]!;
    if (axes.some((a) => a < 0 || a >= shape.length) || new Set(axes).size !== axes.length)
      fail(op, `axes ${show(axes)} of ${show(shape)}`);
    return float(shape.flatMap((d, i) => (axes.includes(i) ? (keepDims ? [1] : []) : [d])));
  };
const lastAxis =
  (op: string): Rule<None> =>
  (inputs) => {
    want(op, inputs, 'float32');
    if (inputs[0]!.shape.length === 0) fail(op, 'needs at least one axis');
    return float(inputs[0]!.shape);
  };

/** One rule an op: dtype and shape of the output. `input`, `parameter` and `constant` are typed by the builder. */
export const SHAPE_RULES: { [Name in Exclude<OpName, 'input' | 'parameter' | 'constant'>]: Rule<OpAttributes[Name]> } =
  {
    neg: unary('neg'),
    exp: unary('exp'),
    log: unary('log'),
    sqrt: unary('sqrt'),
    reciprocal: unary('reciprocal'),
    sigmoid: unary('sigmoid'),
    silu: unary('silu'),
    gelu: unary('gelu'),
    erf: unary('erf'),
    tanh: unary('tanh'),
    add: binary('add'),
    sub: binary('sub'),
    mul: binary('mul'),
    div: binary('div'),
    maximum: binary('maximum'),
    minimum: binary('minimum'),
    less_equal: compare('less_equal'),
    equal: compare('equal'),
    where: (inputs) => {
      want('where', inputs, 'bool', 'float32', 'float32');
      const [condition, a, b] = inputs as [Typed, Typed, Typed];
      return float(broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape, 'where'), 'where'));
    },
    cast: (inputs, { to }) => {
      want('cast', inputs, 'any');
      return { dtype: to, shape: inputs[0]!.shape };
    },
    reshape: (inputs, { shape }) => {
      want('reshape', inputs, 'any');
      if (sizeOf(shape) !== sizeOf(inputs[0]!.shape)) fail('reshape', `${show(inputs[0]!.shape)} to ${show(shape)}`);
      return { dtype: inputs[0]!.dtype, shape };
    },
    transpose: (inputs, { permutation }) => {
      want('transpose', inputs, 'any');
      const { shape, dtype } = inputs[0]!;
      if (permutation.length !== shape.length || shape.some((_, i) => !permutation.includes(i)))
        fail('transpose', `permutation ${show(permutation)} of ${show(shape)}`);
      return { dtype, shape: permutation.map((p) => shape[p]!) };
    },
    slice: (inputs, { axis, start, end }) => {
      want('slice', inputs, 'any');
      const { shape, dtype } = inputs[0]!;
      if (!(axis >= 0 && axis < shape.length && start >= 0 && start < end && end <= shape[axis]!))
        fail('slice', `[${start}, ${end}) along axis ${axis} of ${show(shape)}`);
      return { dtype, shape: shape.map((d, i) => (i === axis ? end - start : d)) };
    },
    concat: (inputs, { axis }) => {
      const first = inputs[0] ?? fail('concat', 'needs an input');
      for (const { dtype, shape } of inputs)
        if (
          dtype !== first.dtype ||
          shape.length !== first.shape.length ||
          shape.some((d, i) => i !== axis && d !== first.shape[i])
        )
          fail('concat', `along axis ${axis}: ${inputs.map((i) => show(i.shape)).join(' ')}`);
      const total = inputs.reduce((sum, { shape }) => sum + shape[axis]!, 0);
      return { dtype: first.dtype, shape: first.shape.map((d, i) => (i === axis ? total : d)) };
    },
    pad: (inputs, { axis, before, after }) => {
      want('pad', inputs, 'float32');
      const { shape } = inputs[0]!;
      if (!(axis >= 0 && axis < shape.length && before >= 0 && after >= 0))
        fail('pad', `axis ${axis} of ${show(shape)}`);
      return float(shape.map((d, i) => (i === axis ? d + before + after : d)));
    },
    broadcast_to: (inputs, { shape }) => {
      want('broadcast_to', inputs, 'any');
      if (!sameShape(broadcastShapes(inputs[0]!.shape, shape, 'broadcast_to'), shape))
        fail('broadcast_to', `${show(inputs[0]!.shape)} to ${show(shape)}`);
      return { dtype: inputs[0]!.dtype, shape };
    },
    sum: reduce('sum'),
    max: reduce('max'),
    matmul: (inputs, { transposeA, transposeB }) => {
      want('matmul', inputs, 'float32', 'float32');
      const [a, b] = [inputs[0]!.shape, inputs[1]!.shape];
      if (a.length < 2 || b.length < 2) fail('matmul', `${show(a)} x ${show(b)}: rank below 2`);
      const batch = a.slice(0, -2);
      if (b.length > 2 && !sameShape(batch, b.slice(0, -2)))
        fail('matmul', `${show(a)} x ${show(b)}: batch dims differ`);
      if (b.length === 2 && transposeA && a.length > 2) fail('matmul', 'transposeA with a rank-2 b needs a rank-2 a');
      const [m, k] = transposeA ? [a.at(-1)!, a.at(-2)!] : [a.at(-2)!, a.at(-1)!];
      const [k2, n] = transposeB ? [b.at(-1)!, b.at(-2)!] : [b.at(-2)!, b.at(-1)!];
      if (k !== k2) fail('matmul', `${show(a)} x ${show(b)}: inner dims ${k} and ${k2}`);
      return float([...batch, m, n]);
    },
    gather_rows: (inputs) => {
      want('gather_rows', inputs, 'any', 'int32');
      const [table, indices] = inputs as [Typed, Typed];
      return { dtype: table.dtype, shape: [...indices.shape, ...table.shape.slice(1)] };
    },
    scatter_add_rows: (inputs, { rows }) => {
      want('scatter_add_rows', inputs, 'float32', 'int32');
      const [updates, indices] = inputs as [Typed, Typed];
      if (!sameShape(updates.shape.slice(0, indices.shape.length), indices.shape))
        fail('scatter_add_rows', `updates ${show(updates.shape)}, indices ${show(indices.shape)}`);
      return float([rows, ...updates.shape.slice(indices.shape.length)]);
    },
    take_along_last: (inputs) => {
      want('take_along_last', inputs, 'float32', 'int32');
      const [x, indices] = inputs as [Typed, Typed];
      if (!sameShape(x.shape.slice(0, -1), indices.shape.slice(0, -1)))
        fail('take_along_last', `x ${show(x.shape)}, indices ${show(indices.shape)}`);
      return float(indices.shape);
    },
    scatter_add_last: (inputs, { size }) => {
      want('scatter_add_last', inputs, 'float32', 'int32');
      const [updates, indices] = inputs as [Typed, Typed];
      if (!sameShape(updates.shape, indices.shape))
        fail('scatter_add_last', `updates ${show(updates.shape)}, indices ${show(indices.shape)}`);
      return float([...updates.shape.slice(0, -1), size]);
    },
    softmax: lastAxis('softmax'),
    log_softmax: lastAxis('log_softmax'),
    rms_norm: (inputs) => {
      want('rms_norm', inputs, 'float32', 'float32');
      const [x, weight] = inputs as [Typed, Typed];
      if (weight.shape.length !== 1 || weight.shape[0] !== x.shape.at(-1))
        fail('rms_norm', `x ${show(x.shape)}, weight ${show(weight.shape)}`);
      return float(x.shape);
    },
    rope: (inputs, { heads }) => {
      want('rope', inputs, 'float32', 'float32', 'float32');
      const [x, cos, sin] = inputs as [Typed, Typed, Typed];
      const half = x.shape[1]! / heads / 2;
      if (x.shape.length !== 2 || !sameShape(cos.shape, [x.shape[0]!, half]) || !sameShape(sin.shape, cos.shape))
        fail('rope', `x ${show(x.shape)} of ${heads} heads, cos ${show(cos.shape)}, sin ${show(sin.shape)}`);
      return float(x.shape);
    },
  };
