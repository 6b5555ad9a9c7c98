import { referenceEngine } from '@frame-thinker/graph';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config.ts';
import { fromDiskName, parameterSpecs, toDiskName } from './names.ts';
import { nestedJson } from './tiny-config.ts';
import { initialise, loadWeights, type WeightSource } from './weights.ts';

const config = parseConfig(nestedJson());
const tied = parseConfig(nestedJson({}, { tie_word_embeddings: true }));

/** A source of the initial weights under changed names; `shapes` overrides shapes. */
function source(
  rename: (name: string) => string,
  changes: { drop?: string; add?: string[]; shape?: [string, number[]] } = {},
): WeightSource {
  const values = initialise(config, 3);
  const shapes = new Map(parameterSpecs(config).map(({ name, shape }) => [rename(name), shape]));
  if (changes.drop) shapes.delete(changes.drop);
  for (const name of changes.add ?? []) shapes.set(name, [1]);
  if (changes.shape) shapes.set(...changes.shape);
  return {
    names: () => shapes.keys(),
    shape: (name) => shapes.get(name)!,
    read: (name) => values.get(fromDiskName(name))!,
  };
}

describe('parameter names', () => {
  it('go to disk and back, and both namings are understood', () => {
    for (const { name } of parameterSpecs(config)) {
      expect(fromDiskName(toDiskName(name))).toBe(name);
      expect(fromDiskName(name)).toBe(name);
    }
    expect(toDiskName('model.visual.merger.ln_q.weight')).toBe('visual.merger.ln_q.weight');
    expect(toDiskName('model.language_model.norm.weight')).toBe('model.norm.weight');
  });
  it('have a head of their own only if untied', () => {
    const has = (c: typeof config) => parameterSpecs(c).some(({ name }) => name === 'lm_head.weight');
    expect([has(config), has(tied)]).toEqual([true, false]);
  });
  it('all decay, or matrices only', () => {
    expect(parameterSpecs(config).every(({ decay }) => decay)).toBe(true);
    for (const { shape, decay } of parameterSpecs(config, { decayMatricesOnly: true }))
      expect(decay).toBe(shape.length > 1);
  });
});

describe('initialise', () => {
  it('is a function of the seed, with norms 1, biases 0 and the std asked for', () => {
    const values = initialise(config, 7, 0.05);
    expect(initialise(config, 7, 0.05)).toEqual(values);
    expect(initialise(config, 8, 0.05)).not.toEqual(values);
    expect(values.get('model.language_model.norm.weight')).toEqual(new Float32Array(24).fill(1));
    expect(values.get('model.visual.merger.mlp.0.bias')!.every((x) => x === 0)).toBe(true);
    const embedding = values.get('model.language_model.embed_tokens.weight')!;
    const std = Math.sqrt(embedding.reduce((a, b) => a + b * b, 0) / embedding.length);
    expect(Math.abs(std - 0.05)).toBeLessThan(0.005);
  });
});

describe('loadWeights', () => {
  it.each([
    ['in memory', (name: string) => name],
    ['on disk', toDiskName],
  ])('takes names as they are %s', async (_, rename) => {
    const parameters = referenceEngine().parameters(parameterSpecs(config));
    await loadWeights(parameters, source(rename, { add: ['model.rotary_emb.inv_freq'] }));
    for (const [name, values] of initialise(config, 3)) expect(parameters.read(name)).toEqual(values);
  });
  it("leaves out a tied model's copy of its head", async () => {
    const parameters = referenceEngine().parameters(parameterSpecs(tied));
    await loadWeights(parameters, source(toDiskName));
    expect(parameters.read('model.language_model.norm.weight')[0]).toBe(1);
  });
  it('names what is missing, unexpected or of another shape, and writes nothing', async () => {
    const parameters = referenceEngine().parameters(parameterSpecs(config));
    const bad = source(toDiskName, {
      drop: 'lm_head.weight',
      add: ['model.extra'],
      shape: ['model.norm.weight', [23]],
    });
    await expect(loadWeights(parameters, bad)).rejects.toThrow(
      /missing: lm_head.weight; unexpected: model.extra; of another shape: model.norm.weight \[23\] instead of \[24\]/,
    );
    expect(parameters.read('model.language_model.embed_tokens.weight').every((x) => x === 0)).toBe(true);
  });
});
