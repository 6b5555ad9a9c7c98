import { createRng } from '@frame-thinker/core';
import { referenceEngine } from '@frame-thinker/graph';
import { describe, expect, it } from 'vitest';
import { parseConfig, type QwenVLConfig } from './config.ts';
import { VALUE_HEAD, valueParameterSpecs } from './names.ts';
import type { ScoreRow } from './score-layout.ts';
import { nestedJson } from './tiny-config.ts';
import { createValueScorer } from './value-scorer.ts';
import { createVisionEncoder } from './vision-encoder.ts';
import { initialise, initialiseValueHead, loadWeights } from './weights.ts';

const untied = parseConfig(nestedJson());
const tied = parseConfig(nestedJson({}, { tie_word_embeddings: true }));

function criticOf(config: QwenVLConfig) {
  const engine = referenceEngine();
  const parameters = engine.parameters(valueParameterSpecs(config));
  const head = initialiseValueHead(config, 5);
  const first = new Map([...initialise(config, 5, 0.3), ...head]);
  for (const { name } of parameters.specs) parameters.write(name, first.get(name)!);
  const vision = createVisionEncoder({ engine, parameters, config });
  return {
    parameters,
    head,
    critic: createValueScorer({ engine, parameters, config, vision, lengthBucket: 8, chunk: 5 }),
  };
}

const { normal } = createRng(9, 'synth');
const grid: [number, number, number] = [1, 2, 2];
const picture = { key: 'a', grid, pixels: Float32Array.from({ length: 4 * 3 * 2 * 4 }, normal) };
const rows: ScoreRow[] = [
  { ids: Int32Array.of(1, 38, 36, 39, 4, 5, 6), images: [picture], scored: Uint8Array.of(0, 0, 0, 0, 1, 0, 1) },
  { ids: Int32Array.of(1, 30, 2, 3), images: [] },
];
const dValues = rows.map(({ ids }) => Float32Array.from(ids, normal));

describe.each([
  ['untied', untied],
  ['tied', tied],
])('a critic, %s', (_, config) => {
  it('has the head in place of the LM head', () => {
    const names = valueParameterSpecs(config).map(({ name }) => name);
    expect(names.slice(-2)).toEqual(['score.weight', 'score.bias']);
    expect(names).not.toContain('lm_head.weight');
  });

  it('gives the gradients that central differences give: head, decoder and vision tower', async () => {
    const { parameters, critic } = criticOf(config);
    const values = await critic.backward(rows, dValues);
    expect(values).toEqual(await critic.forward(rows));
    const objective = async () => {
      const now = await critic.forward(rows);
      let sum = 0;
      now.forEach((row, r) => {
        row.forEach((value, i) => {
          sum += value * dValues[r]![i]!;
        });
      });
      return sum;
    };
    for (const name of [
      VALUE_HEAD.weight,
      VALUE_HEAD.bias,
      'model.language_model.embed_tokens.weight',
      'model.language_model.layers.1.mlp.gate_proj.weight',
      'model.language_model.norm.weight',
      'model.visual.patch_embed.proj.weight',
      'model.visual.merger.mlp.0.bias',
    ]) {
      const gradient = parameters.gradients.get(name);
      const at = gradient.reduce((best, g, i) => (Math.abs(g) > Math.abs(gradient[best]!) ? i : best), 0);
      const weights = parameters.read(name);
      const middle = weights[at]!;
      const h = 2e-3;
      const shifted = async (by: number) => {
        weights[at] = middle + by;
        parameters.write(name, weights);
        return objective();
      };
      const slope = ((await shifted(h)) - (await shifted(-h))) / (2 * h);
      await shifted(0);
      expect(Math.abs(slope / gradient[at]! - 1), name).toBeLessThan(5e-3);
    }
  });
});

describe('values', () => {
  it('are those of the state before a token, of scored tokens only', async () => {
    const { critic } = criticOf(untied);
    const [first, second] = await critic.forward(rows);
    expect(Array.from(first!, (x) => x !== 0)).toEqual([false, false, false, false, true, false, true]);
    // The value before a token does not know it, nor what follows; the next one does.
    const [other] = await critic.forward([{ ids: Int32Array.of(1, 30, 7, 3), images: [] }]);
    expect(other![2]).toBeCloseTo(second![2]!, 6);
    expect(Math.abs(other![3]! - second![3]!)).toBeGreaterThan(1e-5);
  });

  it('are w · hidden + b: they follow the head', async () => {
    const { critic, parameters, head } = criticOf(untied);
    const before = await critic.forward(rows);
    const weight = head.get(VALUE_HEAD.weight)!;
    parameters.write(
      VALUE_HEAD.weight,
      weight.map((w) => 2 * w),
    );
    parameters.write(VALUE_HEAD.bias, Float32Array.of(0.25));
    const after = await critic.forward(rows);
    for (const [r, { ids, scored }] of rows.entries())
      for (let i = 1; i < ids.length; i++)
        if (!scored || scored[i]) expect(after[r]![i]).toBeCloseTo(2 * before[r]![i]! + 0.25, 5);
  });

  it("start from a policy's weights and a head from the seed, unless the folder has one", async () => {
    const policy = initialise(untied, 1, 0.3);
    const source = (extra: Map<string, Float32Array>) => {
      const all = new Map([...policy, ...extra]);
      const shapes = new Map(valueParameterSpecs(untied).map(({ name, shape }) => [name, shape]));
      return {
        names: () => all.keys(),
        shape: (name: string) => shapes.get(name) ?? [],
        read: (name: string) => all.get(name)!,
      };
    };
    const parameters = referenceEngine().parameters(valueParameterSpecs(untied));
    await expect(loadWeights(parameters, source(new Map()))).rejects.toThrow(/missing: score.weight, score.bias/);
    await loadWeights(parameters, source(new Map()), initialiseValueHead(untied, 3));
    expect(parameters.read(VALUE_HEAD.weight)).toEqual(initialiseValueHead(untied, 3).get(VALUE_HEAD.weight));
    expect(initialiseValueHead(untied, 4).get(VALUE_HEAD.weight)).not.toEqual(parameters.read(VALUE_HEAD.weight));
    const own = new Map([
      [VALUE_HEAD.weight, new Float32Array(untied.hidden).fill(0.5)],
      [VALUE_HEAD.bias, Float32Array.of(2)],
    ]);
    await loadWeights(parameters, source(own), initialiseValueHead(untied, 3));
    expect(parameters.read(VALUE_HEAD.bias)).toEqual(Float32Array.of(2));
  });
});
