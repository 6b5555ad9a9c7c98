/** @file Parameters of the model: names in memory and on disk, and shapes. */
import type { ParameterSpec, Shape } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';

export const LANGUAGE = 'model.language_model.';
export const VISUAL = 'model.visual.';
export const LM_HEAD = 'lm_head.weight';
/** The critic's head, by the names that transformers gives the head of a token classifier. */
export const VALUE_HEAD = { weight: 'score.weight', bias: 'score.bias' } as const;

function visionShapes({ vision, hidden }: QwenVLConfig): [string, Shape][] {
  const { hidden: h, intermediate: ff, merge } = vision;
  const block = (i: number): [string, Shape][] =>
    (
      [
        ['norm1.weight', [h]],
        ['norm2.weight', [h]],
        ['attn.qkv.weight', [3 * h, h]],
        ['attn.qkv.bias', [3 * h]],
        ['attn.proj.weight', [h, h]],
        ['attn.proj.bias', [h]],
        ['mlp.gate_proj.weight', [ff, h]],
        ['mlp.gate_proj.bias', [ff]],
        ['mlp.up_proj.weight', [ff, h]],
        ['mlp.up_proj.bias', [ff]],
        ['mlp.down_proj.weight', [h, ff]],
        ['mlp.down_proj.bias', [h]],
      ] as [string, Shape][]
    ).map(([name, shape]) => [`blocks.${i}.${name}`, shape]);
  const merged = h * merge * merge;
  return [
    ['patch_embed.proj.weight', [h, vision.channels, vision.temporalPatch, vision.patch, vision.patch]],
    ...Array.from({ length: vision.depth }, (_, i) => block(i)).flat(),
    ['merger.ln_q.weight', [h]],
    ['merger.mlp.0.weight', [merged, merged]],
    ['merger.mlp.0.bias', [merged]],
    ['merger.mlp.2.weight', [hidden, merged]],
    ['merger.mlp.2.bias', [hidden]],
  ];
}

function languageShapes(config: QwenVLConfig): [string, Shape][] {
  const { hidden: h, intermediate: ff } = config;
  const q = config.heads * config.headDim;
  const kv = config.kvHeads * config.headDim;
  const layer = (i: number): [string, Shape][] =>
    (
      [
        ['self_attn.q_proj.weight', [q, h]],
        ['self_attn.q_proj.bias', [q]],
        ['self_attn.k_proj.weight', [kv, h]],
        ['self_attn.k_proj.bias', [kv]],
        ['self_attn.v_proj.weight', [kv, h]],
        ['self_attn.v_proj.bias', [kv]],
        ['self_attn.o_proj.weight', [h, q]],
        ['mlp.gate_proj.weight', [ff, h]],
        ['mlp.up_proj.weight', [ff, h]],
        ['mlp.down_proj.weight', [h, ff]],
        ['input_layernorm.weight', [h]],
        ['post_attention_layernorm.weight', [h]],
      ] as [string, Shape][]
    ).map(([name, shape]) => [`layers.${i}.${name}`, shape]);
  return [
    ['embed_tokens.weight', [config.vocab, h]],
    ...Array.from({ length: config.layers }, (_, i) => layer(i)).flat(),
    ['norm.weight', [h]],
  ];
}

/**
 * Every parameter by its name in memory, in a fixed order; linear weights are [out, in].
 * Weight decay acts on all of them, as torch's AdamW does on model.parameters(); `decayMatricesOnly` spares biases and norms.
 */
export function parameterSpecs(
  config: QwenVLConfig,
  { decayMatricesOnly = false }: { decayMatricesOnly?: boolean } = {},
): ParameterSpec[] {
  const shapes: [string, Shape][] = [
    ...visionShapes(config).map(([name, shape]): [string, Shape] => [VISUAL + name, shape]),
    ...languageShapes(config).map(([name, shape]): [string, Shape] => [LANGUAGE + name, shape]),
    ...(config.tied ? [] : [[LM_HEAD, [config.vocab, config.hidden]] as [string, Shape]]),
  ];
  return shapes.map(([name, shape]) => ({ name, shape, decay: !decayMatricesOnly || shape.length > 1 }));
}

/** The parameters of a critic: a value head in place of the LM head. */
export function valueParameterSpecs(config: QwenVLConfig): ParameterSpec[] {
  return [
    ...parameterSpecs(config).filter(({ name }) => name !== LM_HEAD),
    { name: VALUE_HEAD.weight, shape: [1, config.hidden], decay: true },
    { name: VALUE_HEAD.bias, shape: [1], decay: true },
  ];
}

/** model.language_model.* → model.*, model.visual.* → visual.*; lm_head.weight stays. */
export function toDiskName(name: string): string {
  if (name.startsWith(LANGUAGE)) return `model.${name.slice(LANGUAGE.length)}`;
  if (name.startsWith(VISUAL)) return `visual.${name.slice(VISUAL.length)}`;
  return name;
}

/** The name in memory of a name of either naming. */
export function fromDiskName(name: string): string {
  if (name.startsWith(LANGUAGE) || name.startsWith(VISUAL)) return name;
  if (name.startsWith('visual.')) return `model.${name}`;
  if (name.startsWith('model.')) return LANGUAGE + name.slice('model.'.length);
  return name;
}
