/** @file Cached decoding of one row through the extend graph: the smallest loop that a rollout makes. */
import type { Engine, ParameterSet, Program, Tensor } from '@frame-thinker/graph';
import { extendGraph, mropePositions, type QwenVLConfig, ropeTables } from '@frame-thinker/qwen-vl';

export interface Piece {
  ids: ArrayLike<number>;
  grids?: readonly (readonly [number, number, number])[];
  /** [tokens, hidden] of all images of the piece, in order. */
  features?: Float32Array;
}

/** A row's cache of `capacity` tokens. `extend` appends a piece and returns the logits after it. */
export class CachedDecoder {
  readonly #engine: Engine;
  readonly #parameters: ParameterSet;
  readonly #config: QwenVLConfig;
  readonly #capacity: number;
  readonly #programs = new Map<string, Promise<Program>>();
  readonly #cache: Float32Array[];
  #next = 0;
  #length = 0;

  constructor(options: { engine: Engine; parameters: ParameterSet; config: QwenVLConfig; capacity: number }) {
    const { engine, parameters, config, capacity } = options;
    this.#engine = engine;
    this.#parameters = parameters;
    this.#config = config;
    this.#capacity = capacity;
    const size = config.kvHeads * capacity * config.headDim;
    this.#cache = Array.from({ length: 2 * config.layers }, () => new Float32Array(size));
  }

  async extend({ ids, grids = [], features = new Float32Array(0) }: Piece): Promise<Float32Array> {
    const { hidden, kvHeads, headDim, imageToken } = this.#config;
    // A little right padding whenever there is more than a token: it must change nothing.
    const length = ids.length === 1 ? 1 : ids.length + 3;
    const past = this.#length === 0 ? 0 : this.#capacity;
    const rows = features.length / hidden;
    // Without images every token counts as text: an unbanned model may sample a pad.
    const kinds = grids.length > 0 ? ids : new Int32Array(ids.length);
    const { positions, next } = mropePositions({ ids: kinds, grids, config: this.#config, start: this.#next });
    const tables = ropeTables(this.#config, positions);
    const padded = (data: Float32Array) => {
      const out = new Float32Array((length * headDim) / 2);
      out.set(data);
      return out;
    };
    const all = Int32Array.from({ length }, (_, i) => ids[i] ?? 0);
    const inputs: Record<string, Tensor> = {
      ids: { dtype: 'int32', shape: [length], data: all },
      cos: { dtype: 'float32', shape: [length, headDim / 2], data: padded(tables.cos) },
      sin: { dtype: 'float32', shape: [length, headDim / 2], data: padded(tables.sin) },
    };
    if (length > 1) inputs.last = { dtype: 'int32', shape: [1], data: Int32Array.of(ids.length - 1) };
    if (rows > 0) {
      const at = Int32Array.from([...all.keys()].filter((i) => all[i] === imageToken));
      const mask = Float32Array.from(all, (id) => (id === imageToken ? 0 : 1));
      inputs.features = { dtype: 'float32', shape: [rows, hidden], data: features };
      inputs.feature_at = { dtype: 'int32', shape: [rows], data: at };
      inputs.text_mask = { dtype: 'float32', shape: [length, 1], data: mask };
    }
    if (past > 0) {
      const mask = new Float32Array(past).fill(-1e30).fill(0, 0, this.#length);
      inputs.past_mask = { dtype: 'float32', shape: [1, past], data: mask };
      this.#cache.forEach((data, i) => {
        const name = `past_${i % 2 === 0 ? 'k' : 'v'}_${i >> 1}`;
        inputs[name] = { dtype: 'float32', shape: [1, kvHeads, past, headDim], data };
      });
    }
    const key = `${length} ${past} ${rows}`;
    const program =
      this.#programs.get(key) ??
      this.#engine.compile(extendGraph(this.#config, { rows: 1, length, past, features: rows }), {
        parameters: this.#parameters,
      });
    this.#programs.set(key, program);
    const out = await (await program).run(inputs);
    this.#append(out.new_kv!.data as Float32Array, length, ids.length);
    this.#next = next;
    return out.logits!.data as Float32Array;
  }

  /** newKv [2 · layers, 1, kvHeads, length, headDim]; the first `count` tokens are real. */
  #append(newKv: Float32Array, length: number, count: number): void {
    const { kvHeads, headDim } = this.#config;
    this.#cache.forEach((data, i) => {
      for (let head = 0; head < kvHeads; head++) {
        const from = (i * kvHeads + head) * length * headDim;
        data.set(newKv.subarray(from, from + count * headDim), (head * this.#capacity + this.#length) * headDim);
      }
    });
    this.#length += count;
  }
}

/** Log-softmax in float64. */
export function logSoftmax(logits: Float32Array): Float64Array {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((a, b) => a + Math.exp(b - top), 0);
  return Float64Array.from(logits, (x) => x - top - Math.log(sum));
}

export function argmax(x: Float32Array): number {
  return x.reduce((best, value, i) => (value > x[best]! ? i : best), 0);
}
