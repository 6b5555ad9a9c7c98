/** @file The decoder in graph ops: embedding, layers, LM head. */
import type { GraphBuilder, Value } from '@frame-thinker/graph';
import type { Projections } from './attention.ts';
import type { QwenVLConfig } from './config.ts';
import { createWeights, gatedMlp } from './layers.ts';
import { LANGUAGE, LM_HEAD } from './names.ts';

/** Token embeddings [T, hidden]; rows where textMask [T, 1] is 0 come from `features` [T, hidden] (zeros elsewhere). */
export function embedTokens(
  g: GraphBuilder,
  config: QwenVLConfig,
  ids: Value,
  images?: { features: Value; textMask: Value },
): Value {
  const table = createWeights(g, config).parameter(`${LANGUAGE}embed_tokens.weight`);
  const x = g.gatherRows(table, ids);
  return images ? g.add(g.mul(x, images.textMask), images.features) : x;
}

/**
 * All layers and the final norm. x [T, hidden], cos and sin [T, headDim / 2].
 * `attend` gets each layer's projections and returns [T, heads · headDim].
 */
export function decoderLayers(
  g: GraphBuilder,
  config: QwenVLConfig,
  options: { x: Value; cos: Value; sin: Value; attend: (layer: number, projections: Projections) => Value },
): Value {
  const { cos, sin, attend } = options;
  const { heads, kvHeads, headDim, eps } = config;
  const weights = createWeights(g, config);
  // The scale of the scores is put into the queries' rotation: one small product instead of one a layer.
  const scale = g.scalar(headDim ** -0.5);
  const [queryCos, querySin] = [g.mul(cos, scale), g.mul(sin, scale)];
  let x = options.x;
  for (let i = 0; i < config.layers; i++) {
    const layer = `${LANGUAGE}layers.${i}`;
    x = g.scope(`layers.${i}`, () => {
      const h = g.rmsNorm(x, weights.parameter(`${layer}.input_layernorm.weight`), eps);
      const project = (name: string) => weights.linear(h, `${layer}.self_attn.${name}_proj`, { bias: true });
      const attended = attend(i, {
        q: g.rope(project('q'), queryCos, querySin, heads),
        k: g.rope(project('k'), cos, sin, kvHeads),
        v: project('v'),
      });
      const y = g.add(x, weights.linear(attended, `${layer}.self_attn.o_proj`));
      const h2 = g.rmsNorm(y, weights.parameter(`${layer}.post_attention_layernorm.weight`), eps);
      return g.add(y, gatedMlp(g, weights, h2, `${layer}.mlp`));
    });
  }
  return g.rmsNorm(x, weights.parameter(`${LANGUAGE}norm.weight`), eps);
}

/** Logits [N, vocab] of hidden rows [N, hidden]; tied: the embedding is the head. */
export function lmHead(g: GraphBuilder, config: QwenVLConfig, hidden: Value): Value {
  const name = config.tied ? `${LANGUAGE}embed_tokens.weight` : LM_HEAD;
  return g.matmul(hidden, createWeights(g, config).parameter(name), { transposeB: true });
}
