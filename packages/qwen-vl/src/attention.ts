/** @file The decoder's attention in graph ops: chunked, causal, grouped queries without expanding key/value heads. */
import type { GraphBuilder, Value } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { splitHeads } from './layers.ts';

/** Added to scores and logits that must not count: finite, so that 0 · x stays 0. */
export const MASKED = -1e30;

/** What a layer projects its tokens to: q [T, heads · headDim], rotated and scaled; k (rotated) and v [T, kvHeads · headDim]. */
export interface Projections {
  q: Value;
  k: Value;
  v: Value;
}

/** Heads apart: q [rows, kvHeads, length · group, headDim] (position-major), k and v [rows, kvHeads, length, headDim]. */
export interface Heads {
  q: Value;
  k: Value;
  v: Value;
}

/** Rows of equal length: T = rows · length tokens. */
export interface Span {
  rows: number;
  length: number;
}

/** Cached keys and values of one layer, [rows, kvHeads, past, headDim], and what is added to their scores, [rows, 1, 1, past]. */
export interface Past {
  k: Value;
  v: Value;
  mask: Value;
}

export function splitProjections(g: GraphBuilder, config: QwenVLConfig, x: Projections, span: Span): Heads {
  const { heads, kvHeads, headDim } = config;
  const { rows, length } = span;
  const group = heads / kvHeads;
  // All query heads of a key/value head stand together, so that they share one matmul.
  const grouped = splitHeads(g, x.q, rows, length, kvHeads);
  return {
    q: g.reshape(grouped, [rows, kvHeads, length * group, headDim]),
    k: splitHeads(g, x.k, rows, length, kvHeads),
    v: splitHeads(g, x.v, rows, length, kvHeads),
  };
}

/** [rows, kvHeads, length · group, headDim] → [rows · length, heads · headDim]. */
export function joinHeads(g: GraphBuilder, config: QwenVLConfig, y: Value, { rows, length }: Span): Value {
  const { heads, kvHeads, headDim } = config;
  const flat = [rows * length, heads * headDim];
  if (length === 1) return g.reshape(y, flat);
  const apart = g.reshape(y, [rows, kvHeads, length, (heads / kvHeads) * headDim]);
  return g.reshape(g.transpose(apart, [0, 2, 1, 3]), flat);
}

/**
 * Causal attention in chunks of queries: chunk [i, i + c) sees keys [0, before + i + c), so the masked half is not computed.
 * The first `before` keys (k and v have before + length) are seen by every query. With `past`, its scores and the new ones
 * are joined for the softmax and split again for the values: nothing of the past is copied.
 * @returns a function of each layer's heads → [rows, kvHeads, length · group, headDim]
 */
export function causalAttention(
  g: GraphBuilder,
  options: { length: number; group: number; chunk: number; before?: number },
): (heads: Heads, past?: Past) => Value {
  const { length, group, chunk, before = 0 } = options;
  const masks = new Map<number, Value>();
  /** [c · group, before + end]: query position start + floor(row / group) sees new keys up to itself. */
  const mask = (start: number, end: number): Value => {
    const known = masks.get(start);
    if (known) return known;
    const rows = (end - start) * group;
    const width = before + end;
    const data = new Float32Array(rows * width);
    for (let r = 0; r < rows; r++)
      data.fill(MASKED, r * width + before + start + Math.floor(r / group) + 1, (r + 1) * width);
    const value = g.constant(data, [rows, width]);
    masks.set(start, value);
    return value;
  };
  return ({ q, k, v }, past) => {
    const parts: Value[] = [];
    for (let start = 0; start < length; start += chunk) {
      const end = Math.min(start + chunk, length);
      const cut = (x: Value, from: number, to: number) => (x.shape[2] === to - from ? x : g.slice(x, 2, from, to));
      const qs = cut(q, start * group, end * group);
      let scores = g.matmul(qs, cut(k, 0, before + end), { transposeB: true });
      if (end - start > 1) scores = g.add(scores, mask(start, end));
      const vs = cut(v, 0, before + end);
      if (!past) {
        parts.push(g.matmul(g.softmax(scores), vs));
        continue;
      }
      const cached = past.k.shape[2]!;
      const pastScores = g.add(g.matmul(qs, past.k, { transposeB: true }), past.mask);
      const p = g.softmax(g.concat([pastScores, scores], 3));
      const ofPast = g.matmul(g.slice(p, 3, 0, cached), past.v);
      parts.push(g.add(ofPast, g.matmul(g.slice(p, 3, cached, p.shape[3]!), vs)));
    }
    return parts.length === 1 ? parts[0]! : g.concat(parts, 2);
  };
}

/**
 * Attention of whole sequences that may share their beginning: tokens are [prefix, rows · length], the prefix standing once
 * for all rows. It is computed once; its keys and values are repeated for the rows (a small copy).
 */
export function sequenceAttention(
  g: GraphBuilder,
  config: QwenVLConfig,
  options: Span & { prefix: number; chunk: number },
): (x: Projections) => Value {
  const { rows, length, prefix, chunk } = options;
  const { kvHeads, headDim } = config;
  const group = config.heads / kvHeads;
  const own = causalAttention(g, { length, group, chunk, before: prefix });
  if (prefix === 0) return (x) => joinHeads(g, config, own(splitProjections(g, config, x, options)), options);
  const ofPrefix = causalAttention(g, { length: prefix, group, chunk });
  const span = { rows: 1, length: prefix };
  return (x) => {
    const cut = (from: number, to: number): Projections => ({
      q: g.slice(x.q, 0, from, to),
      k: g.slice(x.k, 0, from, to),
      v: g.slice(x.v, 0, from, to),
    });
    const shared = splitProjections(g, config, cut(0, prefix), span);
    const { q, k, v } = splitProjections(g, config, cut(prefix, prefix + rows * length), options);
    const repeated = (y: Value) => g.broadcastTo(y, [rows, kvHeads, prefix, headDim]);
    const rest = own({ q, k: g.concat([repeated(shared.k), k], 2), v: g.concat([repeated(shared.v), v], 2) });
    return g.concat([joinHeads(g, config, ofPrefix(shared), span), joinHeads(g, config, rest, options)], 0);
  };
}
