/** @file Decoding: new tokens given cached keys and values. The caller owns the cache. */
import { type Graph, GraphBuilder, type Value } from '@frame-thinker/graph';
import { causalAttention, joinHeads, splitProjections } from './attention.ts';
import type { QwenVLConfig } from './config.ts';
import { decoderLayers, embedTokens, lmHead } from './decoder.ts';

export interface ExtendShape {
  rows: number;
  /** New tokens a row (right-padded). */
  length: number;
  /** Slots of the cache that are read. */
  past: number;
  /** Rows of image features given; absent or 0: a pure text step without feature inputs. */
  features?: number;
  /** Query chunk of the attention (default 128). */
  chunk?: number;
}

/**
 * Inputs (T = rows · length, token i of row r at r · length + i):
 * - ids int32 [T]; cos, sin float32 [T, headDim / 2] (positions.ts)
 * - with features: features float32 [features, hidden], feature_at int32 [features] (index in T of each feature row; a
 *   padding row is zeros at any index), text_mask float32 [T, 1] (0 on image tokens, else 1)
 * - with past: past_mask float32 [rows, past] added to the scores (0 = visible, −1e30 = not), past_k_<layer>, past_v_<layer>
 *   float32 [rows, kvHeads, past, headDim]
 * - with length > 1: last int32 [rows], index in T of the row's last real new token
 * Outputs: logits [rows, vocab] after that token; new_kv [2 · layers, rows, kvHeads, length, headDim]: k of layer 0, v of
 * layer 0, k of layer 1, … (keys already rotated).
 * New tokens attend causally among themselves, so right padding changes nothing before it.
 */
export function extendGraph(config: QwenVLConfig, shape: ExtendShape): Graph {
  const { rows, length, features = 0, chunk = 128 } = shape;
  const { hidden, headDim, kvHeads } = config;
  const g = new GraphBuilder();
  const tokens = rows * length;
  const ids = g.input('ids', 'int32', [tokens]);
  const images =
    features > 0
      ? {
          features: g.scatterAddRows(
            g.input('features', 'float32', [features, hidden]),
            g.input('feature_at', 'int32', [features]),
            tokens,
          ),
          textMask: g.input('text_mask', 'float32', [tokens, 1]),
        }
      : undefined;
  const mask =
    shape.past > 0
      ? g.reshape(g.input('past_mask', 'float32', [rows, shape.past]), [rows, 1, 1, shape.past])
      : undefined;
  const attention = causalAttention(g, { length, group: config.heads / kvHeads, chunk });
  const fresh: Value[] = [];
  const states = decoderLayers(g, config, {
    x: embedTokens(g, config, ids, images),
    cos: g.input('cos', 'float32', [tokens, headDim / 2]),
    sin: g.input('sin', 'float32', [tokens, headDim / 2]),
    attend: (layer, projections) => {
      const qkv = splitProjections(g, config, projections, shape);
      for (const x of [qkv.k, qkv.v]) fresh.push(g.reshape(x, [1, rows, kvHeads, length, headDim]));
      if (!mask) return joinHeads(g, config, attention(qkv), shape);
      const cached = (kind: 'k' | 'v') =>
        g.input(`past_${kind}_${layer}`, 'float32', [rows, kvHeads, shape.past, headDim]);
      const past = { k: cached('k'), v: cached('v'), mask };
      return joinHeads(g, config, attention(qkv, past), shape);
    },
  });
  const last = length > 1 ? g.gatherRows(states, g.input('last', 'int32', [rows])) : states;
  g.output('logits', lmHead(g, config, last));
  g.output('new_kv', g.concat(fresh, 0));
  return g.build();
}
