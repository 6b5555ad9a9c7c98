/** @file What of a Hugging Face config.json of Qwen2.5-VL the model is built from. */
import { InputError } from '@frame-thinker/core';

export interface VisionConfig {
  depth: number;
  hidden: number;
  heads: number;
  headDim: number;
  intermediate: number;
  /** Side of a patch in pixels. */
  patch: number;
  /** Frames in a patch. */
  temporalPatch: number;
  /** Side of a merge block in patches: merge² patches make one token. */
  merge: number;
  channels: number;
  /** Side of an attention window in pixels. */
  window: number;
  /** Blocks with full attention; the others attend within windows. */
  fullAttention: readonly number[];
  ropeTheta: number;
  eps: number;
  initializerRange: number;
}

export interface QwenVLConfig {
  vocab: number;
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  eps: number;
  ropeTheta: number;
  /** Sizes of the temporal, height and width sections of headDim / 2. */
  mropeSection: readonly [number, number, number];
  /** The LM head is the embedding. */
  tied: boolean;
  maxPositions: number;
  initializerRange: number;
  imageToken: number;
  videoToken: number;
  visionStart: number;
  visionEnd: number;
  vision: VisionConfig;
}

type Json = Record<string, unknown>;

const isObject = (x: unknown): x is Json => typeof x === 'object' && x !== null && !Array.isArray(x);

/** Reads typed keys of one object; `where` names the object in errors. */
function reader(json: Json, where: string) {
  const path = (key: string) => (where ? `${where}.${key}` : key);
  /** A positive number; absent: the fallback, which is transformers' own default (its files leave defaults out), else an error. */
  const number = (key: string, fallback?: number): number => {
    const value = json[key] ?? fallback;
    if (value === undefined) throw new InputError(`config.json: ${path(key)} is missing`);
    if (typeof value !== 'number' || !Number.isFinite(value) || value < 0)
      throw new InputError(`config.json: ${path(key)} must be a number >= 0, is ${JSON.stringify(value)}`);
    return value;
  };
  const count = (key: string, fallback?: number): number => {
    const value = number(key, fallback);
    if (!Number.isInteger(value) || value === 0)
      throw new InputError(`config.json: ${path(key)} must be a whole number > 0, is ${value}`);
    return value;
  };
  const silu = () => {
    const act = json.hidden_act ?? 'silu';
    if (act !== 'silu')
      throw new InputError(`config.json: ${path('hidden_act')} ${JSON.stringify(act)} is not supported (silu is)`);
  };
  return { number, count, silu, path };
}

function divide(a: number, b: number, what: string): number {
  if (a % b !== 0) throw new InputError(`config.json: ${what}: ${a} is not a multiple of ${b}`);
  return a / b;
}

function refuseUnsupported(top: Json, text: Json): void {
  const type = top.model_type ?? 'qwen2_5_vl';
  if (type !== 'qwen2_5_vl' && type !== 'qwen2_5_vl_text')
    throw new InputError(`config.json: model_type ${JSON.stringify(type)} is not supported (qwen2_5_vl is)`);
  for (const key of ['num_experts', 'num_local_experts', 'num_experts_per_tok', 'moe_intermediate_size'])
    if (text[key]) throw new InputError(`config.json: mixture of experts (${key}) is not supported`);
  const types = Array.isArray(text.layer_types) ? text.layer_types : undefined;
  const other = types?.find((t) => t !== 'full_attention');
  if (other !== undefined)
    throw new InputError(`config.json: layer_types ${JSON.stringify(other)} is not supported (full_attention is)`);
  // Without layer_types, layers from max_window_layers on slide (transformers' rule).
  const layers = Number(text.num_hidden_layers);
  const sliding = text.use_sliding_window === true && (text.sliding_window ?? 4096) !== null;
  if (!types && sliding && Number(text.max_window_layers ?? 80) < layers)
    throw new InputError('config.json: sliding window attention (use_sliding_window) is not supported');
}

/** Rotary settings in either layout: rope_parameters (5.x), or rope_scaling beside rope_theta (4.x). */
function readRope(text: Json, where: string, half: number): Pick<QwenVLConfig, 'ropeTheta' | 'mropeSection'> {
  const key = isObject(text.rope_parameters) ? 'rope_parameters' : 'rope_scaling';
  const rope = text[key];
  if (!isObject(rope)) throw new InputError('config.json: rope_parameters (or rope_scaling) is missing');
  for (const type of [rope.rope_type, rope.type])
    if (type !== undefined && type !== 'default' && type !== 'mrope')
      throw new InputError(`config.json: ${key} of type ${JSON.stringify(type)} is not supported (default, mrope are)`);
  const section = rope.mrope_section;
  if (!Array.isArray(section) || section.length !== 3 || !section.every((n) => Number.isInteger(n) && n >= 0))
    throw new InputError(`config.json: ${key}.mrope_section must be three whole numbers`);
  const [t, h, w] = section as [number, number, number];
  if (t + h + w !== half)
    throw new InputError(
      `config.json: ${key}.mrope_section ${JSON.stringify(section)} must sum to head_dim / 2 = ${half}`,
    );
  const theta = rope.rope_theta ?? text.rope_theta;
  return { ropeTheta: reader({ theta: theta ?? 1e6 }, where).number('theta'), mropeSection: [t, h, w] };
}

function readVision(json: unknown, hidden: number): VisionConfig {
  if (!isObject(json)) throw new InputError('config.json: vision_config is missing');
  const { number, count, silu, path } = reader(json, 'vision_config');
  silu();
  const rope = isObject(json.rope_parameters) ? json.rope_parameters : {};
  const type = rope.rope_type ?? 'axial';
  if (type !== 'axial' && type !== 'default')
    throw new InputError(`config.json: ${path('rope_parameters')} of type ${JSON.stringify(type)} is not supported`);
  const out = count('out_hidden_size', 3584);
  if (out !== hidden)
    throw new InputError(
      `config.json: vision_config.out_hidden_size ${out} is not the decoder's hidden_size ${hidden}`,
    );
  const depth = count('depth', 32);
  const fullAttention = json.fullatt_block_indexes ?? [7, 15, 23, 31];
  if (!Array.isArray(fullAttention) || !fullAttention.every((i) => Number.isInteger(i)))
    throw new InputError(`config.json: ${path('fullatt_block_indexes')} must be a list of whole numbers`);
  const headDim = divide(count('hidden_size', 3584), count('num_heads', 16), 'vision_config.hidden_size / num_heads');
  divide(headDim, 4, 'vision head size (2-D rotary)');
  return {
    depth,
    hidden: count('hidden_size', 3584),
    heads: count('num_heads', 16),
    headDim,
    intermediate: count('intermediate_size', 3420),
    patch: count('patch_size', 14),
    temporalPatch: count('temporal_patch_size', 2),
    merge: count('spatial_merge_size', 2),
    channels: json.in_channels === undefined ? count('in_chans', 3) : count('in_channels'),
    window: count('window_size', 112),
    fullAttention: fullAttention as number[],
    ropeTheta: reader(rope, path('rope_parameters')).number('rope_theta', 10_000),
    eps: 1e-6,
    initializerRange: number('initializer_range', 0.02),
  };
}

/**
 * Reads config.json in both layouts: text_config / rope_parameters (transformers 5) and flat with rope_scaling (4.x).
 * Keys that transformers leaves out at their default get that default.
 * @throws InputError naming the key that is missing or the feature that is not supported.
 */
export function parseConfig(json: unknown): QwenVLConfig {
  if (!isObject(json)) throw new InputError('config.json: must be an object');
  const nested = isObject(json.text_config);
  const text = nested ? (json.text_config as Json) : json;
  refuseUnsupported(json, text);
  const where = nested ? 'text_config' : '';
  const { number, count, silu } = reader(text, where);
  silu();
  const top = reader(json, '');
  const hidden = count('hidden_size');
  const heads = count('num_attention_heads');
  const kvHeads = count('num_key_value_heads', heads);
  divide(heads, kvHeads, 'num_attention_heads / num_key_value_heads');
  const headDim = text.head_dim ? count('head_dim') : divide(hidden, heads, 'hidden_size / num_attention_heads');
  return {
    vocab: count('vocab_size'),
    hidden,
    layers: count('num_hidden_layers'),
    heads,
    kvHeads,
    headDim,
    intermediate: count('intermediate_size'),
    eps: number('rms_norm_eps', 1e-5),
    ...readRope(text, where, divide(headDim, 2, 'head_dim')),
    tied: (json.tie_word_embeddings ?? text.tie_word_embeddings ?? false) === true,
    maxPositions: count('max_position_embeddings', 32_768),
    initializerRange: number('initializer_range', 0.02),
    imageToken: top.number('image_token_id', 151_655),
    videoToken: top.number('video_token_id', 151_656),
    visionStart: top.number('vision_start_token_id', 151_652),
    visionEnd: top.number('vision_end_token_id', 151_653),
    vision: readVision(json.vision_config, hidden),
  };
}
