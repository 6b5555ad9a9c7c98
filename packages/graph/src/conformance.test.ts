import { describe, expect, it } from 'vitest';
import { compareOutputs, conformanceCases, deviation } from './conformance.ts';
import { SHAPE_RULES } from './ops.ts';
import { referenceEngine } from './reference-engine.ts';
import { NON_DIFFERENTIABLE } from './vjp/index.ts';

describe('the conformance suite', () => {
  it('holds every op, forward and gradient, with inputs, parameters and constants', () => {
    const cases = conformanceCases(1);
    for (const op of Object.keys(SHAPE_RULES)) {
      const of = cases.filter((c) => c.op === op);
      expect(of.filter((c) => !c.graph.outputs.has('d0')).length, op).toBeGreaterThan(2);
      expect(of.some((c) => c.graph.outputs.has('d0')) !== NON_DIFFERENTIABLE.has(of[0]!.op), op).toBe(true);
    }
    const leaves = new Set(cases.flatMap((c) => c.graph.nodes.map((n) => n.op)));
    for (const leaf of ['input', 'parameter', 'constant'] as const) expect(leaves.has(leaf)).toBe(true);
    expect(new Set(cases.map((c) => c.graph.nodes.map((n) => n.op).join())).size).toBeGreaterThan(80);
  });

  it('is the same for the same seed and another for another', () => {
    const names = (seed: number) => conformanceCases(seed).map((c) => c.name);
    expect(names(5)).toEqual(names(5));
    expect(names(5)).not.toEqual(names(6));
  });

  it('passes on the reference engine to float32 rounding', async () => {
    for (const one of conformanceCases(2)) {
      const { maxRel } = await deviation(referenceEngine(), one);
      expect(maxRel, one.name).toBeLessThan(2 ** -24);
    }
  });

  it('compares differences, NaN, shapes and missing outputs', () => {
    const t = (data: number[], shape = [data.length]) => ({ y: { dtype: 'float32' as const, shape, data } });
    expect(compareOutputs(t([1, 201]), t([1.5, 200]))).toEqual({ maxAbs: 1, maxRel: 0.5 / 1.5, output: 'y' });
    expect(compareOutputs(t([Number.NaN, Infinity]), t([Number.NaN, Infinity])).maxAbs).toBe(0);
    expect(compareOutputs(t([Number.NaN]), t([1])).maxRel).toBe(Infinity);
    expect(compareOutputs(t([-Infinity]), t([Infinity])).maxRel).toBe(Infinity);
    expect(compareOutputs(t([1, 2], [2, 1]), t([1, 2])).maxAbs).toBe(Infinity);
    expect(compareOutputs({}, t([1])).output).toBe('y');
  });
});
