/** @file Whether merged tensors are the language decoder that the base's config.json describes: a shard set of another model, or a part of one. */
import { InputError } from '@frame-thinker/core';
import type { BaseConfig } from './base-config.ts';

type Tensors = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/** Types of models whose decoder layers are all alike. */
const DENSE = new Set(['qwen2', 'qwen3', 'qwen2_vl', 'qwen2_5_vl']);
const LAYER = /^model\.(?:language_model\.)?layers\.(\d+)\.(.*)$/;

/** Shapes that the config fixes, by the name within a layer. */
function layerShapes({ hidden, intermediate }: BaseConfig): Map<string, (number | null)[]> {
  return new Map([
    ['input_layernorm.weight', [hidden]],
    ['post_attention_layernorm.weight', [hidden]],
    ['mlp.gate_proj.weight', [intermediate, hidden]],
    ['mlp.up_proj.weight', [intermediate, hidden]],
    ['mlp.down_proj.weight', [hidden, intermediate]],
  ]);
}

const fits = (shape: readonly number[], wanted: readonly (number | null)[]): boolean =>
  shape.length === wanted.length && shape.every((n, dim) => wanted[dim] === null || wanted[dim] === n);

/**
 * Layers as many as the config names; of the dense Qwen models also an embedding and a final norm, the same tensors in each layer, and
 * the shapes that the config fixes. Tensors without decoder layers (an adapter alone) are not looked at.
 * @throws InputError naming what is missing, too many or of another shape
 */
export function checkDecoder(tensors: Tensors, config: BaseConfig, localDir: string): void {
  const { layers, hidden, modelType, path } = config;
  const byLayer = new Map<number, Map<string, readonly number[]>>();
  for (const [name, { shape }] of tensors) {
    const [, layer, rest = ''] = LAYER.exec(name) ?? [];
    if (layer === undefined) continue;
    const own = byLayer.get(Number(layer)) ?? new Map<string, readonly number[]>();
    byLayer.set(Number(layer), own.set(rest, shape));
  }
  if (byLayer.size === 0) return;
  const fail = (what: string) => new InputError(`${localDir}: ${what}`);
  if (layers !== null) {
    const missing = Array.from({ length: layers }, (_, layer) => layer).find((layer) => !byLayer.has(layer));
    if (missing !== undefined) throw fail(`holds nothing of layer ${missing}; ${path} has ${layers} layers`);
    const extra = [...byLayer.keys()].find((layer) => layer >= layers);
    if (extra !== undefined) throw fail(`holds layer ${extra}; ${path} has ${layers} layers`);
  }
  if (modelType === null || !DENSE.has(modelType)) return;

  for (const [what, wanted] of [
    ['embed_tokens.weight', [null, hidden]],
    ['norm.weight', [hidden]],
  ] as const) {
    const found = [`model.${what}`, `model.language_model.${what}`].find((name) => tensors.has(name));
    if (found === undefined) throw fail(`holds no ${what} of the decoder, but its layers`);
    const { shape } = tensors.get(found)!;
    if (!fits(shape, wanted))
      throw fail(`tensor ${found}: [${shape}], by ${path} it has [${wanted.map((n) => n ?? '…')}]`);
  }
  const [[firstLayer, first]] = [...byLayer].sort(([a], [b]) => a - b) as [[number, Map<string, readonly number[]>]];
  const shapes = layerShapes(config);
  for (const [layer, own] of byLayer) {
    for (const [a, b, lacking] of [
      [first, own, layer],
      [own, first, firstLayer],
    ] as const)
      for (const name of a.keys())
        if (!b.has(name))
          throw fail(`layer ${lacking} lacks ${name}, which layer ${lacking === layer ? firstLayer : layer} has`);
    for (const [name, shape] of own) {
      const wanted = shapes.get(name) ?? first.get(name)!;
      if (!fits(shape, wanted))
        throw fail(`layer ${layer}: ${name}: [${shape}], by ${path} it has [${wanted.map((n) => n ?? '…')}]`);
    }
  }
}
