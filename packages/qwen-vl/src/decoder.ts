/** @file The decoder in graph ops: embedding, layers, chunked causal attention without expanding key/value heads. */
import type { GraphBuilder, Value } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { createWeights, gatedMlp, splitHeads } from './layers.ts';
import { LANGUAGE, LM_HEAD } from './names.ts';

/** Added to scores and logits that must not count: finite, so that 0 · x stays 0. */
export const MASKED = -1e30;

/** Cached keys and values of one layer, [rows, kvHeads, past, headDim], and what is added to their scores, [rows, 1, 1, past]. */
export interface Past {
  k: Value;
  v: Value;
  mask: Value;
}

/** What each layer attends with; keys are rotated, queries rotated and scaled. */
export interface LayerAttention {
  /** [rows, kvHeads, length · group, headDim]: the queries of one key/value head, position-major. */
  q: Value;
  /** [rows, kvHeads, length, headDim] */
  k: Value;
  v: Value;
}

/**
 * Causal attention in chunks of queries: chunk [i, i + c) sees keys [0, i + c), so the masked half is not computed.
 * All `group` query heads of a key/value head share one matmul. With `past`, its scores and the new ones are joined for
 * the softmax and split again for the values: nothing of the past is copied.
 * @returns [rows, kvHeads, length · group, headDim]
 */
export function causalAttention(
  g: GraphBuilder,
  { length, group, chunk }: { length: number; group: number; chunk: number },
) {
  const masks = new Map<number, Value>();
  /** [c · group, end]: query position start + floor(row / group) sees keys up to itself. */
  const mask = (start: number, end: number): Value => {
    const known = masks.get(start);
    if (known) return known;
    const rows = (end - start) * group;
    const data = new Float32Array(rows * end);
    for (let r = 0; r < rows; r++) data.fill(MASKED, r * end + start + Math.floor(r / group) + 1, (r + 1) * end);
    const value = g.constant(data, [rows, end]);
    masks.set(start, value);
    return value;
  };
  return ({ q, k, v }: LayerAttention, past?: Past): Value => {
    const parts: Value[] = [];
    for (let start = 0; start < length; start += chunk) {
      const end = Math.min(start + chunk, length);
      const cut = (x: Value, from: number, to: number) => (x.shape[2] === to - from ? x : g.slice(x, 2, from, to));
      const qs = cut(q, start * group, end * group);
      let scores = g.matmul(qs, cut(k, 0, end), { transposeB: true });
      if (end - start > 1) scores = g.add(scores, mask(start, end));
      const vs = cut(v, 0, end);
      if (!past) {
        parts.push(g.matmul(g.softmax(scores), vs));
        continue;
      }
      const before = past.k.shape[2]!;
      const pastScores = g.add(g.matmul(qs, past.k, { transposeB: true }), past.mask);
      const p = g.softmax(g.concat([pastScores, scores], 3));
      parts.push(g.add(g.matmul(g.slice(p, 3, 0, before), past.v), g.matmul(g.slice(p, 3, before, before + end), vs)));
    }
    return parts.length === 1 ? parts[0]! : g.concat(parts, 2);
  };
}

/** Token embeddings [T, hidden]; rows where text_mask is 0 come from `features` [T, hidden] (zeros elsewhere). */
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
 * All layers and the final norm. x [rows · length, hidden], cos and sin [rows · length, headDim / 2].
 * `attend` gets each layer's queries, keys and values and returns [rows, kvHeads, length · group, headDim].
 */
export function decoderLayers(
  g: GraphBuilder,
  config: QwenVLConfig,
  options: {
    x: Value;
    cos: Value;
    sin: Value;
    rows: number;
    length: number;
    attend: (layer: number, attention: LayerAttention) => Value;
  },
): Value {
  const { cos, sin, rows, length, attend } = options;
  const { heads, kvHeads, headDim, eps } = config;
  const group = heads / kvHeads;
  const weights = createWeights(g, config);
  // The scale of the scores is put into the queries' rotation: one small product instead of one a layer.
  const scale = g.scalar(headDim ** -0.5);
  const [queryCos, querySin] = [g.mul(cos, scale), g.mul(sin, scale)];
  const groupQueries = (q: Value): Value =>
    length === 1
      ? g.reshape(q, [rows, kvHeads, group, headDim])
      : g.reshape(g.transpose(g.reshape(q, [rows, length, kvHeads, group * headDim]), [0, 2, 1, 3]), [
          rows,
          kvHeads,
          length * group,
          headDim,
        ]);
  const joinQueries = (y: Value): Value =>
    length === 1
      ? g.reshape(y, [rows, heads * headDim])
      : g.reshape(g.transpose(g.reshape(y, [rows, kvHeads, length, group * headDim]), [0, 2, 1, 3]), [
          rows * length,
          heads * headDim,
        ]);
  let x = options.x;
  for (let i = 0; i < config.layers; i++) {
    const layer = `${LANGUAGE}layers.${i}`;
    x = g.scope(`layers.${i}`, () => {
      const h = g.rmsNorm(x, weights.parameter(`${layer}.input_layernorm.weight`), eps);
      const project = (name: string) => weights.linear(h, `${layer}.self_attn.${name}_proj`, { bias: true });
      const attended = attend(i, {
        q: groupQueries(g.rope(project('q'), queryCos, querySin, heads)),
        k: splitHeads(g, g.rope(project('k'), cos, sin, kvHeads), rows, length, kvHeads),
        v: splitHeads(g, project('v'), rows, length, kvHeads),
      });
      const y = g.add(x, weights.linear(joinQueries(attended), `${layer}.self_attn.o_proj`));
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
