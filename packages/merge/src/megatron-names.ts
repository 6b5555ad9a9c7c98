/** @file Megatron-core's names, what they are called in Hugging Face's Qwen models, and how each is cut. */

/** How the tensor-parallel parts make the whole, and what comes out. */
export type MegatronCut =
  | { readonly kind: 'copies' | 'vocabulary'; readonly name: string }
  | { readonly kind: 'join'; readonly dim: 0 | 1; readonly name: string }
  /** Each part holds rows of all names, one after the other. */
  | { readonly kind: 'stacked'; readonly names: readonly [string, string] }
  /** Each part holds groups of rows: queries of a group, its key, its value. */
  | { readonly kind: 'qkv'; readonly names: readonly [string, string, string] }
  /** As qkv, but one tensor: all queries, all keys, all values (the vision tower). */
  | { readonly kind: 'fused-qkv'; readonly name: string };

const LANGUAGE_TOP: ReadonlyMap<string, MegatronCut> = new Map<string, MegatronCut>([
  ['embedding.word_embeddings.weight', { kind: 'vocabulary', name: 'model.embed_tokens.weight' }],
  ['output_layer.weight', { kind: 'vocabulary', name: 'lm_head.weight' }],
  ['decoder.final_layernorm.weight', { kind: 'copies', name: 'model.norm.weight' }],
]);

const VISION_TOP: ReadonlyMap<string, MegatronCut> = new Map<string, MegatronCut>([
  ['patch_embed.proj.weight', { kind: 'copies', name: 'visual.patch_embed.proj.weight' }],
  ['decoder.final_layernorm.weight', { kind: 'copies', name: 'visual.merger.ln_q.weight' }],
  ['projection.encoder.linear_fc1.weight', { kind: 'join', dim: 0, name: 'visual.merger.mlp.0.weight' }],
  ['projection.encoder.linear_fc1.bias', { kind: 'join', dim: 0, name: 'visual.merger.mlp.0.bias' }],
  ['projection.encoder.linear_fc2.weight', { kind: 'join', dim: 1, name: 'visual.merger.mlp.2.weight' }],
  ['projection.encoder.linear_fc2.bias', { kind: 'copies', name: 'visual.merger.mlp.2.bias' }],
]);

function languageLayer(rest: string, prefix: string): MegatronCut | null {
  const [, kind = ''] = /\.(weight|bias)$/.exec(rest) ?? [];
  switch (rest) {
    case 'self_attention.linear_qkv.weight':
    case 'self_attention.linear_qkv.bias':
      return {
        kind: 'qkv',
        names: [
          `${prefix}.self_attn.q_proj.${kind}`,
          `${prefix}.self_attn.k_proj.${kind}`,
          `${prefix}.self_attn.v_proj.${kind}`,
        ],
      };
    case 'self_attention.linear_proj.weight':
      return { kind: 'join', dim: 1, name: `${prefix}.self_attn.o_proj.weight` };
    case 'self_attention.linear_qkv.layer_norm_weight':
      return { kind: 'copies', name: `${prefix}.input_layernorm.weight` };
    case 'self_attention.q_layernorm.weight':
      return { kind: 'copies', name: `${prefix}.self_attn.q_norm.weight` };
    case 'self_attention.k_layernorm.weight':
      return { kind: 'copies', name: `${prefix}.self_attn.k_norm.weight` };
    case 'mlp.linear_fc1.layer_norm_weight':
      return { kind: 'copies', name: `${prefix}.post_attention_layernorm.weight` };
    case 'mlp.linear_fc1.weight':
      return { kind: 'stacked', names: [`${prefix}.mlp.gate_proj.weight`, `${prefix}.mlp.up_proj.weight`] };
    case 'mlp.linear_fc2.weight':
      return { kind: 'join', dim: 1, name: `${prefix}.mlp.down_proj.weight` };
    default:
      return null;
  }
}

function visionLayer(rest: string, prefix: string): MegatronCut | null {
  const [, kind = ''] = /\.(weight|bias)$/.exec(rest) ?? [];
  switch (rest) {
    case 'self_attention.linear_qkv.weight':
    case 'self_attention.linear_qkv.bias':
      return { kind: 'fused-qkv', name: `${prefix}.attn.qkv.${kind}` };
    case 'self_attention.linear_proj.weight':
      return { kind: 'join', dim: 1, name: `${prefix}.attn.proj.weight` };
    case 'self_attention.linear_proj.bias':
      return { kind: 'copies', name: `${prefix}.attn.proj.bias` };
    case 'self_attention.linear_qkv.layer_norm_weight':
      return { kind: 'copies', name: `${prefix}.norm1.weight` };
    case 'mlp.linear_fc1.layer_norm_weight':
      return { kind: 'copies', name: `${prefix}.norm2.weight` };
    case 'mlp.linear_fc1.weight':
    case 'mlp.linear_fc1.bias':
      return { kind: 'stacked', names: [`${prefix}.mlp.gate_proj.${kind}`, `${prefix}.mlp.up_proj.${kind}`] };
    case 'mlp.linear_fc2.weight':
      return { kind: 'join', dim: 1, name: `${prefix}.mlp.down_proj.weight` };
    case 'mlp.linear_fc2.bias':
      return { kind: 'copies', name: `${prefix}.mlp.down_proj.bias` };
    default:
      return null;
  }
}

/** Layer number of a name of the language decoder, counted within its file; null for all other names. */
export function localLayerOf(name: string): number | null {
  const match = /^(?:language_model\.)?decoder\.layers\.(\d+)\./.exec(name);
  return match ? Number(match[1]) : null;
}

/** What a name is on disk. `layer` is its number in the whole model. Null: a name that is not known. */
export function cutOf(name: string, layer: number | null): MegatronCut | null {
  const language = name.replace(/^language_model\./, '');
  if (layer !== null) return languageLayer(language.replace(/^decoder\.layers\.\d+\./, ''), `model.layers.${layer}`);
  const [, vision] = /^vision_model\.(.*)$/.exec(name) ?? [];
  if (vision === undefined) return LANGUAGE_TOP.get(language) ?? null;
  const [, block, rest = ''] = /^decoder\.layers\.(\d+)\.(.*)$/.exec(vision) ?? [];
  return block === undefined ? (VISION_TOP.get(vision) ?? null) : visionLayer(rest, `visual.blocks.${block}`);
}

export type StagePlace = 'first' | 'last' | 'ends';

/** In which stages of the pipeline a name may be: those that have no layer number of the decoder. Null: in any. */
export function stageOf(name: string): StagePlace | null {
  if (name.startsWith('vision_model.')) return 'first';
  switch (name.replace(/^language_model\./, '')) {
    // The last stage has a copy of tied embeddings.
    case 'embedding.word_embeddings.weight':
      return 'ends';
    case 'output_layer.weight':
    case 'decoder.final_layernorm.weight':
      return 'last';
    default:
      return null;
  }
}

/** Entries that hold no weights: state of quantised layers, recomputed frequencies. */
export function isIgnored(name: string): boolean {
  return name.endsWith('_extra_state') || name.endsWith('rotary_pos_emb.inv_freq');
}
