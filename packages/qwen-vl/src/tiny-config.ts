/** @file The smallest configurations, for tests: odd head counts, an untied head, windows smaller than the images. */

type Json = Record<string, unknown>;

const vision = (overrides: Json): Json => ({
  depth: 2,
  hidden_size: 16,
  num_heads: 2,
  intermediate_size: 12,
  patch_size: 2,
  temporal_patch_size: 2,
  window_size: 8,
  fullatt_block_indexes: [1],
  out_hidden_size: 24,
  ...overrides,
});

const text = {
  vocab_size: 40,
  hidden_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  intermediate_size: 20,
  rms_norm_eps: 1e-6,
  max_position_embeddings: 512,
};
const ids = { image_token_id: 36, video_token_id: 37, vision_start_token_id: 38, vision_end_token_id: 39 };

/** The layout of transformers 5. */
export function nestedJson(textOverrides: Json = {}, top: Json = {}, visionOverrides: Json = {}): Json {
  const rope = { rope_type: 'default', rope_theta: 10_000, mrope_section: [1, 1, 2] };
  return {
    model_type: 'qwen2_5_vl',
    ...ids,
    text_config: { model_type: 'qwen2_5_vl_text', ...text, rope_parameters: rope, ...textOverrides },
    vision_config: vision(visionOverrides),
    ...top,
  };
}

/** The flat layout of transformers 4. */
export function flatJson(): Json {
  return {
    model_type: 'qwen2_5_vl',
    ...ids,
    ...text,
    rope_theta: 10_000,
    rope_scaling: { type: 'mrope', mrope_section: [1, 1, 2] },
    tie_word_embeddings: false,
    use_sliding_window: false,
    sliding_window: 32_768,
    vision_config: { ...vision({}), in_chans: 3 },
  };
}
