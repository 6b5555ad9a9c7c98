import { InputError } from '@frame-thinker/core';
import { expect, it } from 'vitest';
import type { BaseConfig } from './base-config.ts';
import { checkDecoder } from './decoder-check.ts';

const config = {
  ...{ path: 'config.json', modelType: 'qwen2', architecture: null, dtype: null, tied: true, vocabSize: 7, layers: 2 },
  ...{ hidden: 4, intermediate: 6, heads: 2, kvHeads: 1, visionHeads: null },
} satisfies BaseConfig;
const model = (): Map<string, { shape: number[] }> =>
  new Map([
    ['model.embed_tokens.weight', { shape: [7, 4] }],
    ['model.norm.weight', { shape: [4] }],
    ...[0, 1].flatMap((layer): [string, { shape: number[] }][] => [
      [`model.layers.${layer}.mlp.up_proj.weight`, { shape: [6, 4] }],
      [`model.layers.${layer}.self_attn.q_proj.weight`, { shape: [4, 4] }],
    ]),
  ]);

it('takes the decoder that the config describes, and what has no layers', () => {
  checkDecoder(model(), config, 'actor');
  checkDecoder(new Map([['anything', { shape: [1] }]]), config, 'actor');
});

it.each<[string, (tensors: Map<string, { shape: number[] }>) => void, RegExp]>([
  ['no final norm', (t) => t.delete('model.norm.weight'), /holds no norm\.weight of the decoder/],
  ['no embedding', (t) => t.delete('model.embed_tokens.weight'), /holds no embed_tokens\.weight/],
  ['a norm of another size', (t) => t.set('model.norm.weight', { shape: [5] }), /norm\.weight: \[5\], .* it has \[4\]/],
  [
    'a matrix turned in every layer',
    (t) => {
      for (const layer of [0, 1]) t.set(`model.layers.${layer}.mlp.up_proj.weight`, { shape: [4, 6] });
    },
    /layer 0: mlp\.up_proj\.weight: \[4,6\], by config\.json it has \[6,4\]/,
  ],
  [
    'one that differs from the first layer',
    (t) => t.set('model.layers.1.self_attn.q_proj.weight', { shape: [2, 4] }),
    /layer 1: self_attn\.q_proj\.weight: \[2,4\]/,
  ],
  ['a layer without one', (t) => t.delete('model.layers.1.mlp.up_proj.weight'), /layer 1 lacks mlp\.up_proj\.weight/],
  ['a first layer without one', (t) => t.delete('model.layers.0.mlp.up_proj.weight'), /layer 0 lacks mlp\.up_proj/],
  ['a layer too many', (t) => t.set('model.layers.2.x', { shape: [1] }), /holds layer 2; config\.json has 2 layers/],
])('refuses %s', (_what, spoil, message) => {
  const tensors = model();
  spoil(tensors);
  expect(() => checkDecoder(tensors, config, 'actor')).toThrow(InputError);
  expect(() => checkDecoder(tensors, config, 'actor')).toThrow(message);
});
