/** @file Random applications of every op: what the gradient tests and the conformance suite of engines run. */
import type { GraphBuilder } from './builder.ts';
import type { OpName } from './ops.ts';
import type { SampleSource } from './sample-source.ts';
import type { Shape, Tensor, Value } from './types.ts';

/** One op on tensors of its own. */
export interface OpSample {
  readonly label: string;
  readonly tensors: readonly Tensor[];
  readonly build: (g: GraphBuilder, values: readonly Value[]) => Value;
}

type Sampler = (source: SampleSource) => OpSample[];
const show = (shape: Shape): string => `[${shape.join(',')}]`;

const unary =
  (
    op: 'neg' | 'exp' | 'log' | 'sqrt' | 'reciprocal' | 'sigmoid' | 'silu' | 'gelu' | 'erf' | 'tanh',
    low = -3,
  ): Sampler =>
  (source) =>
    [0, 1, 3].map((rank) => {
      const shape = source.shape(rank, 5);
      return { label: show(shape), tensors: [source.float(shape, low, 3)], build: (g, [x]) => g.op(op, [x!], {}) };
    });

type Binary = 'add' | 'sub' | 'mul' | 'div' | 'maximum' | 'minimum' | 'less_equal' | 'equal';

/** Pairs of shapes that broadcast: equal, random on either side, a row vector, a scalar, outer. */
function broadcastPairs(source: SampleSource): [Shape, Shape][] {
  const full = source.shape(3);
  return [
    [full, full],
    [full, source.narrowed(full)],
    [source.narrowed(full), full],
    [full, full.slice(-1)],
    [full, []],
    [
      [3, 1],
      [1, 4],
    ],
  ];
}

const binary =
  (op: Binary, make: (source: SampleSource, shape: Shape, operand: 0 | 1) => Tensor): Sampler =>
  (source) =>
    broadcastPairs(source).map(([a, b]) => ({
      label: `${show(a)} ${show(b)}`,
      tensors: [make(source, a, 0), make(source, b, 1)],
      build: (g, values) => g.op(op, values, {}),
    }));
const floats = (source: SampleSource, shape: Shape) => source.float(shape);
const all =
  (...samplers: Sampler[]): Sampler =>
  (source) =>
    samplers.flatMap((sampler) => sampler(source));
const DTYPES = ['float32', 'int32', 'bool'] as const;

const matmul: Sampler = (source) => {
  const samples: OpSample[] = [];
  const add = (a: Shape, b: Shape, transposeA: boolean, transposeB: boolean) =>
    samples.push({
      label: `${show(a)}${transposeA ? 'ᵀ' : ''} ${show(b)}${transposeB ? 'ᵀ' : ''}`,
      tensors: [source.float(a, -1, 1), source.float(b, -1, 1)],
      build: (g, [x, y]) => g.matmul(x!, y!, { transposeA, transposeB }),
    });
  for (const transposeA of [false, true])
    for (const transposeB of [false, true])
      for (const batch of [[], [source.integer(2, 3)], source.shape(2, 3)]) {
        const [m, k, n] = [source.integer(1, 6), source.integer(1, 6), source.integer(1, 6)];
        const a = transposeA ? [k, m] : [m, k];
        const b = transposeB ? [n, k] : [k, n];
        add([...batch, ...a], [...batch, ...b], transposeA, transposeB);
        if (batch.length > 0 && !transposeA) add([...batch, ...a], b, transposeA, transposeB);
      }
  add([33, 48], [48, 20], false, false);
  return samples;
};

const reduce =
  (op: 'sum' | 'max'): Sampler =>
  (source) =>
    [[0], [1], [2], [0, 2], [1, 2], [0, 1, 2]].flatMap((axes) =>
      [false, true].map((keepDims) => {
        const shape = source.shape(3);
        return {
          label: `${show(shape)} axes ${axes}${keepDims ? ' kept' : ''}`,
          tensors: [source.float(shape)],
          build: (g: GraphBuilder, [x]: readonly Value[]) => g.op(op, [x!], { axes, keepDims }),
        };
      }),
    );

const rows =
  (op: 'softmax' | 'log_softmax'): Sampler =>
  (source) =>
    [1, 2, 3].map((rank) => {
      const shape = source.shape(rank, 6);
      return { label: show(shape), tensors: [source.float(shape)], build: (g, [x]) => g.op(op, [x!], {}) };
    });

/** Random indices; with more of them than rows, so that some repeat. */
const indexShapes = (source: SampleSource): number[][] => [[source.integer(1, 7)], source.shape(2, 3), [1]];

const alongLast =
  (op: 'take_along_last' | 'scatter_add_last'): Sampler =>
  (source) =>
    [1, 2, 3].map((rank) => {
      const [size, taken] = [source.integer(2, 6), source.integer(1, 7)];
      const lead = source.shape(rank - 1, 3);
      const indices = source.int([...lead, taken], 0, size - 1);
      const x = source.float([...lead, op === 'take_along_last' ? size : taken]);
      return {
        label: `${show(x.shape)} ${show(indices.shape)}`,
        tensors: [x, indices],
        build: (g, [v, i]) => (op === 'take_along_last' ? g.takeAlongLast(v!, i!) : g.scatterAddLast(v!, i!, size)),
      };
    });

/** Graphs of slices that share a value: what their gradients join. */
const sharedSlices: Sampler = (source) => {
  const of = (label: string, ranges: readonly (readonly [number, number])[]): OpSample => ({
    label,
    tensors: [source.float([3, 8, 2])],
    build: (g, [x]) =>
      ranges
        .map(([start, end], i) => {
          const part = g.slice(x!, 1, start, end);
          return g.sum(g.mul(part, g.mul(part, g.scalar(i + 1))), [1]);
        })
        .reduce((a, b) => g.add(a, b)),
  });
  return [
    of('tiles', [
      [0, 3],
      [3, 4],
      [4, 8],
    ]),
    of('nested prefixes', [
      [0, 2],
      [0, 4],
      [0, 6],
      [0, 8],
    ]),
    of('gaps and overlaps', [
      [1, 4],
      [3, 5],
      [6, 7],
      [1, 4],
    ]),
  ];
};

type Sampled = Exclude<OpName, 'input' | 'parameter' | 'constant'>;

/** One sampler an op; leaves are in every sample. */
export const OP_SAMPLES: { readonly [Name in Sampled]: Sampler } = {
  neg: unary('neg'),
  exp: unary('exp'),
  log: unary('log', 0.3),
  sqrt: unary('sqrt', 0.3),
  reciprocal: unary('reciprocal', 0.4),
  sigmoid: unary('sigmoid'),
  silu: unary('silu'),
  gelu: unary('gelu'),
  erf: unary('erf'),
  tanh: unary('tanh'),
  add: binary('add', floats),
  sub: binary('sub', floats),
  mul: binary('mul', floats),
  div: binary('div', (source, shape, operand) => source.float(shape, operand ? 0.4 : -2, 2)),
  maximum: binary('maximum', floats),
  minimum: binary('minimum', floats),
  less_equal: all(
    binary('less_equal', floats),
    binary('less_equal', (source, shape) => source.any('int32', shape)),
  ),
  equal: all(...DTYPES.map((dtype) => binary('equal', (source, shape) => source.any(dtype, shape)))),
  where: (source) =>
    broadcastPairs(source).map(([a, b], i) => {
      const condition = i % 2 ? a : b;
      return {
        label: `${show(condition)} ${show(a)} ${show(b)}`,
        tensors: [source.bool(condition), source.float(a), source.float(b)],
        build: (g, [c, x, y]) => g.where(c!, x!, y!),
      };
    }),
  cast: (source) =>
    DTYPES.flatMap((from) =>
      DTYPES.map((to) => ({
        label: `${from} to ${to}`,
        tensors: [source.any(from, [3, 4])],
        build: (g: GraphBuilder, [x]: readonly Value[]) => g.cast(x!, to),
      })),
    ),
  reshape: (source) =>
    DTYPES.map((dtype) => ({
      label: dtype,
      tensors: [source.any(dtype, [2, 6])],
      build: (g, [x]) => g.reshape(x!, [3, 1, 4]),
    })),
  transpose: (source) =>
    DTYPES.flatMap((dtype) =>
      [2, 3, 4].map((rank) => {
        const [shape, permutation] = [source.shape(rank), source.permutation(rank)];
        return {
          label: `${dtype} ${show(shape)} by ${show(permutation)}`,
          tensors: [source.any(dtype, shape)],
          build: (g: GraphBuilder, [x]: readonly Value[]) => g.transpose(x!, permutation),
        };
      }),
    ),
  slice: all(
    (source) =>
      DTYPES.flatMap((dtype) =>
        [0, 1, 2].map((axis) => {
          const shape = source.shape(3, 6);
          const start = source.integer(0, shape[axis]! - 1);
          const end = source.integer(start + 1, shape[axis]!);
          return {
            label: `${dtype} ${show(shape)} axis ${axis} [${start},${end})`,
            tensors: [source.any(dtype, shape)],
            build: (g: GraphBuilder, [x]: readonly Value[]) => g.slice(x!, axis, start, end),
          };
        }),
      ),
    sharedSlices,
  ),
  concat: (source) =>
    DTYPES.flatMap((dtype) =>
      [0, 1, 2].map((axis) => {
        const shape = source.shape(3);
        const tensors = [0, 1, 2].map(() =>
          source.any(
            dtype,
            shape.map((d, i) => (i === axis ? source.integer(1, 4) : d)),
          ),
        );
        return {
          label: `${dtype} ${tensors.map((t) => show(t.shape)).join(' ')} axis ${axis}`,
          tensors,
          build: (g: GraphBuilder, parts: readonly Value[]) => g.concat(parts, axis),
        };
      }),
    ),
  pad: (source) =>
    [0, 1, 2].map((axis) => {
      const [shape, before, after] = [source.shape(3), source.integer(0, 2), source.integer(0, 2)];
      return {
        label: `${show(shape)} axis ${axis} by ${before} ${after}`,
        tensors: [source.float(shape)],
        build: (g, [x]) => g.pad(x!, axis, before, after),
      };
    }),
  broadcast_to: (source) =>
    DTYPES.flatMap((dtype) =>
      [0, 1, 2].map(() => {
        const shape = source.shape(3);
        const from = source.narrowed(shape);
        return {
          label: `${dtype} ${show(from)} to ${show(shape)}`,
          tensors: [source.any(dtype, from)],
          build: (g: GraphBuilder, [x]: readonly Value[]) => g.broadcastTo(x!, shape),
        };
      }),
    ),
  sum: reduce('sum'),
  max: reduce('max'),
  matmul,
  gather_rows: (source) =>
    DTYPES.flatMap((dtype) =>
      indexShapes(source).map((shape) => {
        const table = source.any(dtype, [5, ...source.shape(source.integer(0, 2), 3)]);
        return {
          label: `${dtype} ${show(table.shape)} ${show(shape)}`,
          tensors: [table, source.int(shape, 0, 4)],
          build: (g: GraphBuilder, [t, i]: readonly Value[]) => g.gatherRows(t!, i!),
        };
      }),
    ),
  scatter_add_rows: (source) =>
    indexShapes(source).map((shape) => {
      const updates = source.float([...shape, ...source.shape(source.integer(0, 2), 3)]);
      return {
        label: `${show(updates.shape)} ${show(shape)}`,
        tensors: [updates, source.int(shape, 0, 4)],
        build: (g, [u, i]) => g.scatterAddRows(u!, i!, 5),
      };
    }),
  take_along_last: alongLast('take_along_last'),
  scatter_add_last: alongLast('scatter_add_last'),
  softmax: rows('softmax'),
  log_softmax: rows('log_softmax'),
  rms_norm: (source) =>
    [1, 2, 3].map((rank) => {
      const shape = [...source.shape(rank - 1), source.integer(2, 6)];
      return {
        label: show(shape),
        tensors: [source.float(shape), source.float(shape.slice(-1), 0.5, 1.5)],
        build: (g, [x, w]) => g.rmsNorm(x!, w!, 1e-6),
      };
    }),
  rope: (source) =>
    [1, 2, 3].map((heads) => {
      const [length, half] = [source.integer(1, 5), source.integer(1, 4)];
      return {
        label: `${heads} heads [${length},${heads * half * 2}]`,
        tensors: [
          source.float([length, heads * half * 2]),
          source.float([length, half], -1, 1),
          source.float([length, half], -1, 1),
        ],
        build: (g, [x, cos, sin]) => g.rope(x!, cos!, sin!, heads),
      };
    }),
};
