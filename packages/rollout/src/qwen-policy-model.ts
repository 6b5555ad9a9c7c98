/**
 * @file Qwen2.5-VL as a PolicyModel: prompts are prefilled once, slots decode one token a step, observations are appended by one
 * run over only their tokens. Cached keys and values go in as inputs; only the new rows come back.
 */
import { type FrameRef, InvariantError } from '@frame-thinker/core';
import type { Engine, ParameterSet, Program, Tensor } from '@frame-thinker/graph';
import {
  type ExtendShape,
  extendGraph,
  type ImageInput,
  mropePositions,
  type QwenVLConfig,
  ropeTables,
  type VisionEncoder,
} from '@frame-thinker/qwen-vl';
import { KvCache } from './kv-cache.ts';
import type { Extension, PolicyModel, Prefix, Span } from './policy-model.ts';

/** Cached lengths are padded to multiples of this. */
const PAST_BUCKET = 128;
/** New tokens and image features of a run are padded to multiples of these. */
const LENGTH_BUCKET = 32;
const FEATURE_BUCKET = 32;
/** Compiled shapes kept. */
const PROGRAMS = 48;

export interface QwenPolicyOptions {
  engine: Engine;
  parameters: ParameterSet;
  config: QwenVLConfig;
  vision: VisionEncoder;
  /** The images that the model sees for these frames, in order. */
  images(frames: readonly FrameRef[]): Promise<ImageInput[]>;
  slots: number;
}

interface QwenPrefix extends Prefix {
  /** [2 · layers, 1, kvHeads, padded, headDim] */
  newKv: Float32Array;
  padded: number;
  /** mRoPE position of the next token. */
  next: number;
  /** Version of the weights that it was made with. */
  version: number;
}

const float = (data: Float32Array, shape: readonly number[]): Tensor => ({ dtype: 'float32', shape, data });
const int = (data: Int32Array, shape: readonly number[]): Tensor => ({ dtype: 'int32', shape, data });
const roundUp = (n: number, step: number): number => Math.ceil(n / step) * step;

export interface QwenPolicyModel extends PolicyModel {
  /** Milliseconds and calls so far, by kind of run. */
  readonly timings: Readonly<Record<'prefill' | 'extend' | 'step' | 'compile', { ms: number; calls: number }>>;
  close(): Promise<void>;
}

export function createQwenPolicyModel(options: QwenPolicyOptions): QwenPolicyModel {
  const { engine, parameters, config, vision, slots } = options;
  const { layers, kvHeads, headDim, hidden, vocab } = config;
  const half = headDim / 2;
  const cache = new KvCache({ slots, layers, kvHeads, headDim }, PAST_BUCKET);
  const next = new Int32Array(slots);
  const programs = new Map<string, Program>();
  const timings = {
    prefill: { ms: 0, calls: 0 },
    extend: { ms: 0, calls: 0 },
    step: { ms: 0, calls: 0 },
    compile: { ms: 0, calls: 0 },
  };
  const timed = async <T>(kind: keyof typeof timings, work: () => Promise<T>): Promise<T> => {
    const since = performance.now();
    try {
      return await work();
    } finally {
      timings[kind].ms += performance.now() - since;
      timings[kind].calls++;
    }
  };

  const program = async (shape: ExtendShape): Promise<Program> => {
    const key = `decode ${shape.rows}x${shape.length}, past ${shape.past}, features ${shape.features ?? 0}`;
    const known = programs.get(key);
    const found =
      known ?? (await timed('compile', () => engine.compile(extendGraph(config, shape), { parameters, label: key })));
    programs.delete(key);
    programs.set(key, found);
    for (const [oldest, { release }] of programs) {
      if (programs.size <= PROGRAMS) break;
      programs.delete(oldest);
      await release();
    }
    return found;
  };

  /** Inputs of one row of new tokens, padded to `length`, after `start` positions. */
  const rowInputs = async (span: Span, length: number, start: number) => {
    const images = span.images.length > 0 ? await options.images(span.images) : [];
    const { positions, next: after } = mropePositions({
      ids: span.ids,
      grids: images.map(({ grid }) => grid),
      config,
      start,
    });
    const tables = ropeTables(config, positions);
    const pad = (values: Float32Array, size: number): Float32Array => {
      const out = new Float32Array(size);
      out.set(values);
      return out;
    };
    const ids = new Int32Array(length);
    ids.set(span.ids);
    const inputs: Record<string, Tensor> = {
      ids: int(ids, [length]),
      cos: float(pad(tables.cos, length * half), [length, half]),
      sin: float(pad(tables.sin, length * half), [length, half]),
      last: int(Int32Array.of(span.ids.length - 1), [1]),
    };
    let rows = 0;
    if (images.length > 0) {
      const features = await vision.encode(images);
      const count = features.reduce((sum, f) => sum + f.length / hidden, 0);
      rows = roundUp(count, FEATURE_BUCKET);
      const data = new Float32Array(rows * hidden);
      const at = new Int32Array(rows);
      const textMask = new Float32Array(length).fill(1);
      let n = 0;
      span.ids.forEach((id, i) => {
        if (id !== config.imageToken) return;
        at[n++] = i;
        textMask[i] = 0;
      });
      if (n !== count) throw new InvariantError(`${n} image pads for ${count} image features`);
      let offset = 0;
      for (const feature of features) {
        data.set(feature, offset);
        offset += feature.length;
      }
      inputs.features = float(data, [rows, hidden]);
      inputs.feature_at = int(at, [rows]);
      inputs.text_mask = float(textMask, [length, 1]);
    }
    return { inputs, after, features: rows };
  };

  const checkSlot = (slot: number): void => {
    if (!(slot >= 0 && slot < slots)) throw new InvariantError(`slot ${slot} of ${slots}`);
  };

  const extendOne = async ({ slot, span }: Extension): Promise<Float32Array> => {
    checkSlot(slot);
    const length = roundUp(span.ids.length, LENGTH_BUCKET);
    const { inputs, after, features } = await rowInputs(span, length, next[slot]!);
    const { past, mask, layers: cached } = cache.sequence(slot);
    inputs.past_mask = float(mask, [1, past]);
    for (const [layer, { k, v }] of cached.entries()) {
      inputs[`past_k_${layer}`] = float(k, [1, kvHeads, past, headDim]);
      inputs[`past_v_${layer}`] = float(v, [1, kvHeads, past, headDim]);
    }
    const run = await program({ rows: 1, length, past, features });
    const out = await timed('extend', () => run.run(inputs));
    cache.reserve(cache.length(slot) + span.ids.length);
    cache.append(slot, out.new_kv!.data as Float32Array, { row: 0, rows: 1, length, count: span.ids.length });
    next[slot] = after;
    return out.logits!.data as Float32Array;
  };

  return {
    slots,
    vocabSize: vocab,
    timings,

    prefill: async (span): Promise<QwenPrefix> => {
      const length = roundUp(span.ids.length, LENGTH_BUCKET);
      const { inputs, after, features } = await rowInputs(span, length, 0);
      const run = await program({ rows: 1, length, past: 0, features });
      const out = await timed('prefill', () => run.run(inputs));
      return {
        length: span.ids.length,
        logits: out.logits!.data as Float32Array,
        newKv: out.new_kv!.data as Float32Array,
        padded: length,
        next: after,
        version: parameters.version,
      };
    },

    fork: (prefix, slot) => {
      checkSlot(slot);
      const { newKv, padded, length, next: after, version } = prefix as QwenPrefix;
      if (version !== parameters.version)
        throw new InvariantError('the weights changed since the prompt was prefilled');
      cache.clear(slot);
      // Room for the prompt and a first turn, so that the cache rarely has to move.
      cache.reserve(length + 1);
      cache.append(slot, newKv, { row: 0, rows: 1, length: padded, count: length });
      next[slot] = after;
    },

    extend: async (extensions) => {
      const logits: Float32Array[] = [];
      for (const extension of extensions) logits.push(await extendOne(extension));
      return logits;
    },

    step: async (tokens) => {
      if (tokens.length !== slots) throw new InvariantError(`${tokens.length} tokens for ${slots} slots`);
      const ids = new Int32Array(slots);
      const positions = new Int32Array(3 * slots);
      let longest = 0;
      for (let slot = 0; slot < slots; slot++) {
        if (tokens[slot]! < 0) continue;
        ids[slot] = tokens[slot]!;
        for (let axis = 0; axis < 3; axis++) positions[axis * slots + slot] = next[slot]!;
        longest = Math.max(longest, cache.length(slot) + 1);
      }
      cache.reserve(longest);
      const past = cache.capacity;
      const tables = ropeTables(config, positions);
      const inputs: Record<string, Tensor> = {
        ids: int(ids, [slots]),
        cos: float(tables.cos, [slots, half]),
        sin: float(tables.sin, [slots, half]),
        past_mask: float(cache.mask, [slots, past]),
      };
      for (let layer = 0; layer < layers; layer++) {
        const { k, v } = cache.layer(layer);
        inputs[`past_k_${layer}`] = float(k, [slots, kvHeads, past, headDim]);
        inputs[`past_v_${layer}`] = float(v, [slots, kvHeads, past, headDim]);
      }
      const run = await program({ rows: slots, length: 1, past });
      const out = await timed('step', () => run.run(inputs));
      const newKv = out.new_kv!.data as Float32Array;
      for (let slot = 0; slot < slots; slot++) {
        if (tokens[slot]! < 0) continue;
        cache.append(slot, newKv, { row: slot, rows: slots, length: 1, count: 1 });
        next[slot]! += 1;
      }
      return out.logits!.data as Float32Array;
    },

    release: (slot) => {
      checkSlot(slot);
      cache.clear(slot);
    },

    close: async () => {
      for (const { release } of programs.values()) await release();
      programs.clear();
    },
  };
}
