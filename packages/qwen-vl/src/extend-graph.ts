/** @file Decoding: new tokens given cached keys and values. The caller owns the cache. */
import type { Graph } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';

export interface ExtendShape {
  rows: number;
  /** New tokens a row (right-padded). */
  length: number;
  /** Slots of the cache that are read. */
  past: number;
  /** Rows of image features given; absent or 0: a pure text step without feature inputs. */
  features?: number;
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
export function extendGraph(_config: QwenVLConfig, _shape: ExtendShape): Graph {
  throw new Error('not there yet');
}
