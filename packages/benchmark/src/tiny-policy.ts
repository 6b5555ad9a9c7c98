/** @file The tiny Qwen2.5-VL of the embedded default: its tokenizer, config and processor files in HF format. */
import { InputError } from '@frame-thinker/core';
import { BARE_WORDS, SPACED_WORDS } from './synth-words.ts';

const SPECIAL = [
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  '<|vision_start|>',
  '<|vision_end|>',
  '<|image_pad|>',
  '<|video_pad|>',
] as const;

/** GPT-2's map of bytes to printable characters, which byte-level tokenizers use. */
function byteCharacters(): string[] {
  const printable = [...Array(256).keys()].filter((b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable.includes(b) ? b : next++));
}

/**
 * A byte-level tokenizer.json: the 256 bytes (so that any text encodes), then each word of the task, with its leading space, as one
 * added token. Digits, ':', '.', newline and space are their bytes.
 */
export function tinyTokenizer(): { json: Record<string, unknown>; idOf: (token: string) => number; size: number } {
  const bytes = byteCharacters();
  const vocab: Record<string, number> = Object.fromEntries(bytes.map((character, byte) => [character, byte]));
  const added = [...SPECIAL, ...BARE_WORDS, ...SPACED_WORDS.map((word) => ` ${word}`)];
  const tokens = added.map((content, i) => ({
    id: 256 + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: (SPECIAL as readonly string[]).includes(content),
  }));
  const ids = new Map(tokens.map(({ content, id }) => [content, id]));
  return {
    json: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: tokens,
      normalizer: { type: 'NFC' },
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
      post_processor: null,
      decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        vocab,
        merges: [],
      },
    },
    idOf: (token) => {
      const id = ids.get(token) ?? vocab[token];
      if (id === undefined) throw new InputError(`the tiny tokenizer has no token ${JSON.stringify(token)}`);
      return id;
    },
    size: 256 + added.length,
  };
}

/** Qwen2.5-VL's chat template for text contents with `<image>` already written as vision tokens, or contents as lists of parts. */
const CHAT_TEMPLATE =
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}" +
  "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>" +
  "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" +
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}';

/** Sizes of the tiny policy (1.1 M parameters learn the task in minutes; with an initial std of 0.02, the usual one, seeing shapes is learnt much later). */
export interface TinyPolicyOptions {
  hidden?: number;
  layers?: number;
  visionHidden?: number;
  visionDepth?: number;
  initializerRange?: number;
}

/** The files of the HF folder beside the weights. */
export function tinyPolicyFiles(options: TinyPolicyOptions = {}): {
  config: Record<string, unknown>;
  files: Record<string, string>;
} {
  const { hidden = 128, layers = 4, visionHidden = 64, visionDepth = 2, initializerRange = 0.05 } = options;
  const tokenizer = tinyTokenizer();
  const heads = Math.max(1, hidden / 32);
  const end = tokenizer.idOf('<|im_end|>');
  const pad = tokenizer.idOf('<|endoftext|>');
  const config = {
    architectures: ['Qwen2_5_VLForConditionalGeneration'],
    model_type: 'qwen2_5_vl',
    dtype: 'float32',
    image_token_id: tokenizer.idOf('<|image_pad|>'),
    video_token_id: tokenizer.idOf('<|video_pad|>'),
    vision_start_token_id: tokenizer.idOf('<|vision_start|>'),
    vision_end_token_id: tokenizer.idOf('<|vision_end|>'),
    tie_word_embeddings: true,
    text_config: {
      model_type: 'qwen2_5_vl_text',
      vocab_size: tokenizer.size,
      hidden_size: hidden,
      intermediate_size: 3 * hidden,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: Math.max(1, heads / 2),
      hidden_act: 'silu',
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-6,
      initializer_range: initializerRange,
      tie_word_embeddings: true,
      rope_parameters: { rope_type: 'default', rope_theta: 10000, mrope_section: [4, 6, 6] },
      bos_token_id: pad,
      eos_token_id: end,
      pad_token_id: pad,
    },
    vision_config: {
      model_type: 'qwen2_5_vl_vision',
      depth: visionDepth,
      hidden_size: visionHidden,
      intermediate_size: 2 * visionHidden,
      num_heads: 4,
      out_hidden_size: hidden,
      in_channels: 3,
      patch_size: 14,
      temporal_patch_size: 2,
      spatial_merge_size: 2,
      window_size: 112,
      fullatt_block_indexes: [visionDepth - 1],
      hidden_act: 'silu',
      initializer_range: initializerRange,
      tokens_per_second: 2,
    },
  };
  const text = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
  return {
    config,
    files: {
      'config.json': text(config),
      'generation_config.json': text({ bos_token_id: pad, eos_token_id: [end, pad], pad_token_id: pad }),
      'tokenizer.json': text(tokenizer.json),
      'tokenizer_config.json': text({
        tokenizer_class: 'Qwen2TokenizerFast',
        model_max_length: 4096,
        eos_token: '<|im_end|>',
        pad_token: '<|endoftext|>',
        bos_token: null,
        unk_token: null,
        add_bos_token: false,
        add_prefix_space: false,
        clean_up_tokenization_spaces: false,
        split_special_tokens: false,
        chat_template: CHAT_TEMPLATE,
      }),
      'preprocessor_config.json': text({
        image_processor_type: 'Qwen2VLImageProcessor',
        min_pixels: 3136,
        max_pixels: 1003520,
        patch_size: 14,
        temporal_patch_size: 2,
        merge_size: 2,
        image_mean: [0.48145466, 0.4578275, 0.40821073],
        image_std: [0.26862954, 0.26130258, 0.27577711],
        do_convert_rgb: true,
        do_normalize: true,
        do_rescale: true,
        do_resize: true,
        rescale_factor: 1 / 255,
        resample: 3,
      }),
    },
  };
}
