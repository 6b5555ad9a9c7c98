import { InputError } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config.ts';
import { flatJson, nestedJson } from './tiny-config.ts';

describe('parseConfig', () => {
  it('reads both layouts to the same', () => {
    expect(parseConfig(flatJson())).toEqual(parseConfig(nestedJson()));
    const config = parseConfig(nestedJson());
    expect(config).toMatchObject({
      hidden: 24,
      heads: 3,
      kvHeads: 1,
      headDim: 8,
      mropeSection: [1, 1, 2],
      tied: false,
    });
    expect(config.vision).toMatchObject({ hidden: 16, heads: 2, headDim: 8, channels: 3, fullAttention: [1] });
  });

  it('takes the head from the top level, else from text_config', () => {
    const tied = (top?: boolean, text?: boolean) =>
      parseConfig(
        nestedJson({ ...(text !== undefined && { tie_word_embeddings: text }) }, { tie_word_embeddings: top }),
      ).tied;
    expect([tied(true, false), tied(undefined, true), tied(), tied(false, true)]).toEqual([true, true, false, false]);
  });

  const refused: [string, unknown, RegExp][] = [
    ['not an object', [], /must be an object/],
    ['another model', nestedJson({}, { model_type: 'qwen2_vl' }), /model_type "qwen2_vl"/],
    ['sliding window', nestedJson({ use_sliding_window: true, sliding_window: 8, max_window_layers: 0 }), /sliding/],
    ['sliding layers', nestedJson({ layer_types: ['full_attention', 'sliding_attention'] }), /sliding_attention/],
    ['experts', nestedJson({ num_experts: 8 }), /num_experts/],
    ['yarn', nestedJson({ rope_parameters: { rope_type: 'yarn', mrope_section: [1, 1, 2] } }), /yarn/],
    ['no sections', nestedJson({ rope_parameters: { rope_type: 'default' } }), /mrope_section must be three/],
    [
      'sections of another sum',
      nestedJson({ rope_parameters: { mrope_section: [1, 1, 1] } }),
      /sum to head_dim \/ 2 = 4/,
    ],
    ['an activation', nestedJson({ hidden_act: 'gelu' }), /hidden_act "gelu"/],
    ['heads that do not divide', nestedJson({ num_key_value_heads: 2 }), /not a multiple/],
    ['a missing size', nestedJson({ hidden_size: undefined }), /text_config.hidden_size is missing/],
    ['no vision', nestedJson({}, { vision_config: undefined }), /vision_config is missing/],
    ['a vision tower of another width', nestedJson({}, {}, { out_hidden_size: 12 }), /out_hidden_size 12/],
  ];
  it.each(refused)('refuses %s by name', (_, json, message) => {
    expect(() => parseConfig(json)).toThrow(InputError);
    expect(() => parseConfig(json)).toThrow(message);
  });

  it('accepts sliding window settings that no layer uses', () => {
    const json = nestedJson({ use_sliding_window: true, sliding_window: 8, max_window_layers: 2 });
    expect(parseConfig(json).layers).toBe(2);
  });
});
