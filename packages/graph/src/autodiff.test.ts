import { describe, expect, it } from 'vitest';
import { gradients } from './autodiff.ts';
import { GraphBuilder } from './builder.ts';
import { interpret, type TensorLike } from './interpreter/interpret.ts';
import { OP_SAMPLES, type OpSample } from './op-samples.ts';
import { type OpName, SHAPE_RULES } from './ops.ts';
import { SampleSource } from './sample-source.ts';
import type { Graph, Tensor } from './types.ts';
import { NON_DIFFERENTIABLE, VJP_RULES } from './vjp/index.ts';

const STEP = 1e-5;

/** Compares a sample's gradients with central differences of ⟨y, cotangent⟩ in float64. */
function checkGradient(sample: OpSample, source: SampleSource): number {
  const g = new GraphBuilder();
  const values = sample.tensors.map((t, i) => g.input(`x${i}`, t.dtype, t.shape));
  const y = sample.build(g, values);
  if (y.dtype !== 'float32') return 0;
  const cotangent = g.input('cotangent', 'float32', y.shape);
  const wrt = values.filter((v) => v.dtype === 'float32');
  g.output('value', g.sum(g.reshape(g.mul(y, cotangent), [y.shape.reduce((a, b) => a * b, 1)]), [0]));
  for (const [i, d] of gradients(g, [{ output: y, cotangent }], wrt).entries()) {
    expect(d.shape).toEqual(wrt[i]!.shape);
    g.output(`d${i}`, d);
  }
  const graph = g.build();
  const given: Record<string, TensorLike> = { cotangent: source.float(y.shape) };
  for (const [i, t] of sample.tensors.entries()) given[`x${i}`] = { ...t, data: Float64Array.from(t.data) };
  const outputs = interpret(graph, given);
  const valueAt = (name: string, at: number, shift: number): number => {
    const data = Float64Array.from(given[name]!.data);
    data[at]! += shift;
    return interpret(graph, { ...given, [name]: { ...given[name]!, data } }, {}, ['value']).value!.data[0]!;
  };
  let checked = 0;
  for (const [i, v] of wrt.entries()) {
    const name = `x${values.indexOf(v)}`;
    const gradient = outputs[`d${i}`]!.data;
    for (let at = 0; at < gradient.length; at += Math.ceil(gradient.length / 40)) {
      const numeric = (valueAt(name, at, STEP) - valueAt(name, at, -STEP)) / (2 * STEP);
      expect(Math.abs(gradient[at]! - numeric), `${name}[${at}]: ${gradient[at]} is not ${numeric}`).toBeLessThan(
        1e-6 * Math.max(1, Math.abs(numeric)),
      );
      checked++;
    }
  }
  return checked;
}

const countOps = (graph: Graph, op: OpName): number => graph.nodes.filter((n) => n.op === op).length;
const float = (data: number[], shape = [data.length]): Tensor => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from(data),
});

describe('the VJP of every op against central differences', () => {
  for (const op of Object.keys(OP_SAMPLES) as (keyof typeof OP_SAMPLES)[]) {
    if (NON_DIFFERENTIABLE.has(op)) continue;
    it(op, () => {
      let checked = 0;
      for (const seed of [1, 2, 3]) {
        const source = new SampleSource(seed);
        for (const sample of OP_SAMPLES[op](source)) checked += checkGradient(sample, source);
      }
      expect(checked).toBeGreaterThan(5);
    });
  }
});

describe('the table of rules', () => {
  it('holds every op of the vocabulary, or lists it as non-differentiable', () => {
    for (const op of Object.keys(SHAPE_RULES) as OpName[])
      expect(op in VJP_RULES !== NON_DIFFERENTIABLE.has(op), op).toBe(true);
  });

  it('throws for an op without a rule, naming op, node and scope', () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [2]);
    const y = g.scope('layers.3', () => g.scope('attn', () => g.exp(x)));
    Object.assign(g.nodes[y.id]!, { op: 'cosine' });
    expect(() => gradients(g, [{ output: y, cotangent: x }], [x])).toThrow(
      `autodiff: op cosine has no VJP rule (node ${y.id}, scope 'layers.3.attn')`,
    );
  });

  it('needs no rule for what does not reach wrt', () => {
    const g = new GraphBuilder();
    const [x, z] = [g.input('x', 'float32', [2]), g.input('z', 'float32', [2])];
    const other = g.exp(z);
    Object.assign(g.nodes[other.id]!, { op: 'cosine' });
    expect(() => gradients(g, [{ output: g.mul(x, other), cotangent: x }], [x])).not.toThrow();
  });
});

describe('gradients', () => {
  it('sums what several outputs and several uses send', () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [2]);
    const y = g.mul(x, x);
    const [dx, dy] = gradients(
      g,
      [
        { output: y, cotangent: g.constant(Float32Array.of(1, 1), [2]) },
        { output: g.exp(y), cotangent: g.constant(Float32Array.of(0, 2), [2]) },
      ],
      [x, y],
    );
    g.output('dx', dx!);
    g.output('dy', dy!);
    const { dx: gotX, dy: gotY } = interpret(g.build(), { x: float([3, 0.5]) });
    const atY = [1, 1 + 2 * Math.exp(0.25)];
    expect([...gotY!.data]).toEqual(atY);
    expect([...gotX!.data]).toEqual([6 * atY[0]!, 1 * atY[1]!]);
  });

  it('gives zeros for a value that the outputs do not depend on', () => {
    const g = new GraphBuilder();
    const [x, z] = [g.input('x', 'float32', [2]), g.input('z', 'float32', [2, 3])];
    g.output('dz', gradients(g, [{ output: g.exp(x), cotangent: x }], [z])[0]!);
    expect([...interpret(g.build(), { x: float([1, 2]), z: float([1, 2, 3, 4, 5, 6], [2, 3]) }).dz!.data]).toEqual(
      new Array(6).fill(0),
    );
  });

  it('differentiates only what lies between wrt and the outputs', () => {
    const g = new GraphBuilder();
    const [x, w] = [g.input('x', 'float32', [4, 8]), g.parameter('w', [8, 2])];
    const y = g.matmul(g.exp(x), w);
    const before = g.nodes.length;
    gradients(g, [{ output: y, cotangent: y }], [w]);
    expect(g.nodes.slice(before).map((n) => n.op)).toEqual(['matmul']);
  });

  it('refuses a cotangent of another shape', () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [4]);
    expect(() => gradients(g, [{ output: g.exp(x), cotangent: g.scalar(1) }], [x])).toThrow('its cotangent float32 []');
  });

  it('splits a tie of maximum and minimum evenly, and of max among all that tie', () => {
    const g = new GraphBuilder();
    const [x, y] = [g.input('x', 'float32', [3]), g.input('y', 'float32', [3])];
    const ones = g.constant(Float32Array.of(1, 1, 1), [3]);
    for (const op of ['maximum', 'minimum', 'max'] as const) {
      const output = op === 'max' ? g.max(x, [0]) : g.op(op, [x, y], {});
      const cotangent = op === 'max' ? g.scalar(1) : ones;
      for (const [i, d] of gradients(g, [{ output, cotangent }], [x, y]).entries()) g.output(`${op}${i}`, d);
    }
    const out = interpret(g.build(), { x: float([2, 1, 2]), y: float([2, 2, 1]) });
    const got = Object.fromEntries(Object.entries(out).map(([k, v]) => [k, [...v.data]]));
    expect(got).toEqual({
      maximum0: [0.5, 0, 1],
      maximum1: [0.5, 1, 0],
      minimum0: [0.5, 1, 0],
      minimum1: [0.5, 0, 1],
      max0: [0.5, 0, 0.5],
      max1: [0, 0, 0],
    });
  });
});

describe('slices of one value', () => {
  const gradientOps = (ranges: readonly (readonly [number, number])[]): { graph: Graph; added: number } => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [12, 2]);
    const pairs = ranges.map(([start, end]) => ({
      output: g.slice(x, 0, start, end),
      cotangent: g.input(`c${start}_${end}`, 'float32', [end - start, 2]),
    }));
    g.output('dx', gradients(g, pairs, [x])[0]!);
    const graph = g.build();
    const added = graph.nodes.filter((n) => n.op === 'add').reduce((sum, n) => sum + n.shape[0]!, 0);
    return { graph, added };
  };

  it('that tile it become one concat', () => {
    const { graph } = gradientOps([
      [0, 4],
      [4, 5],
      [5, 12],
    ]);
    expect([countOps(graph, 'concat'), countOps(graph, 'pad'), countOps(graph, 'add')]).toEqual([1, 0, 0]);
  });

  it('that are nested prefixes are added at their own lengths', () => {
    const { graph, added } = gradientOps([
      [0, 3],
      [0, 6],
      [0, 9],
      [0, 12],
    ]);
    expect([countOps(graph, 'concat'), countOps(graph, 'pad'), countOps(graph, 'add')]).toEqual([0, 3, 3]);
    expect(added).toBe(6 + 9 + 12);
  });
});
