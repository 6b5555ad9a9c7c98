/** @file Keys and values of the slots' sequences: per layer one array [slots, kvHeads, capacity, headDim] each, grown in buckets. */
import { InvariantError } from '@frame-thinker/core';

export interface CacheShape {
  slots: number;
  layers: number;
  kvHeads: number;
  headDim: number;
}

/** The scores of tokens that are not there: finite, so that 0 · x stays 0. */
const MASKED = -1e30;

export class KvCache {
  readonly #shape: CacheShape;
  readonly #bucket: number;
  readonly #lengths: Int32Array;
  /** Index 2 · layer is k, 2 · layer + 1 is v: the order of extendGraph's new_kv. */
  #data: Float32Array[] = [];
  /** What #data are the beginnings of: as large as was ever needed, since fresh memory costs more than moving what is in it. */
  #memory: Float32Array[] = [];
  #capacity = 0;
  /** [slots, capacity]: 0 where a token is, else −1e30. */
  #mask = new Float32Array(0);
  /** Memory of `sequence`, by array. */
  readonly #staging: Float32Array[] = [];

  /** @param bucket capacities are multiples of it */
  constructor(shape: CacheShape, bucket: number) {
    this.#shape = shape;
    this.#bucket = bucket;
    this.#lengths = new Int32Array(shape.slots);
  }

  get capacity(): number {
    return this.#capacity;
  }
  get mask(): Float32Array {
    return this.#mask;
  }
  length(slot: number): number {
    return this.#lengths[slot]!;
  }

  /** Whole arrays of a layer, [slots, kvHeads, capacity, headDim]; views, valid until `reserve`. */
  layer(layer: number): { k: Float32Array; v: Float32Array } {
    return { k: this.#data[2 * layer]!, v: this.#data[2 * layer + 1]! };
  }

  /**
   * One slot's sequence alone, padded to its own bucket, so that what is computed from it depends on no other slot.
   * Valid until the cache changes.
   */
  sequence(slot: number): { past: number; mask: Float32Array; layers: { k: Float32Array; v: Float32Array }[] } {
    const { layers, kvHeads, headDim } = this.#shape;
    const length = this.#lengths[slot]!;
    const past = this.#padded(length);
    const mask = this.#mask.subarray(slot * this.#capacity, slot * this.#capacity + past);
    const whole = kvHeads * this.#capacity * headDim;
    const arrays = this.#data.map((data, i) => {
      if (past === this.#capacity) return data.subarray(slot * whole, (slot + 1) * whole);
      const size = kvHeads * past * headDim;
      const known = this.#staging[i];
      const target = known && known.length >= size ? known : new Float32Array(size);
      this.#staging[i] = target;
      for (let head = 0; head < kvHeads; head++) {
        const from = slot * whole + head * this.#capacity * headDim;
        target.set(data.subarray(from, from + length * headDim), head * past * headDim);
      }
      return target.subarray(0, size);
    });
    return {
      past,
      mask,
      layers: Array.from({ length: layers }, (_, layer) => ({ k: arrays[2 * layer]!, v: arrays[2 * layer + 1]! })),
    };
  }

  #padded(length: number): number {
    return Math.max(1, Math.ceil(length / this.#bucket)) * this.#bucket;
  }

  /** Makes room for sequences of `length` tokens; shrinks to that when all slots are empty. Views taken before are stale if it moved. */
  reserve(length: number): void {
    const wanted = this.#padded(length);
    const empty = this.#lengths.every((n) => n === 0);
    if (wanted === this.#capacity || (wanted < this.#capacity && !empty)) return;
    const { slots, layers, kvHeads, headDim } = this.#shape;
    const [from, to] = [this.#capacity * headDim, wanted * headDim];
    const size = slots * kvHeads * to;
    this.#memory = Array.from({ length: 2 * layers }, (_, i) => {
      const known = this.#memory[i];
      const memory = known && known.length >= size ? known : new Float32Array(size);
      if (empty) return memory === known ? memory.fill(0) : memory;
      // From the last row on: a row moves to where only later rows were.
      for (let row = slots * kvHeads - 1; row >= 0; row--) {
        const used = this.#lengths[Math.floor(row / kvHeads)]! * headDim;
        const source = known!.subarray(row * from, row * from + used);
        memory.set(source, row * to);
        if (memory === known) source.subarray(0, row * (to - from)).fill(0);
      }
      return memory;
    });
    this.#data = this.#memory.map((memory) => memory.subarray(0, size));
    this.#capacity = wanted;
    this.#mask = new Float32Array(slots * wanted).fill(MASKED);
    for (let slot = 0; slot < slots; slot++) this.#mask.fill(0, slot * wanted, slot * wanted + this.#lengths[slot]!);
  }

  /**
   * Appends `count` tokens to a slot, from row `row` of new_kv [2 · layers, rows, kvHeads, length, headDim].
   * The room must have been reserved.
   */
  append(slot: number, newKv: Float32Array, from: { row: number; rows: number; length: number; count: number }): void {
    const { layers, kvHeads, headDim } = this.#shape;
    const start = this.#lengths[slot]!;
    if (start + from.count > this.#capacity)
      throw new InvariantError(`cache: ${start} + ${from.count} tokens in a capacity of ${this.#capacity}`);
    for (let i = 0; i < 2 * layers; i++) {
      const target = this.#data[i]!;
      for (let head = 0; head < kvHeads; head++) {
        let read = ((i * from.rows + from.row) * kvHeads + head) * from.length * headDim;
        let write = ((slot * kvHeads + head) * this.#capacity + start) * headDim;
        if (from.count > 1) target.set(newKv.subarray(read, read + from.count * headDim), write);
        else for (let j = 0; j < headDim; j++) target[write++] = newKv[read++]!;
      }
    }
    this.#mask.fill(0, slot * this.#capacity + start, slot * this.#capacity + start + from.count);
    this.#lengths[slot] = start + from.count;
  }

  clear(slot: number): void {
    this.#mask.fill(MASKED, slot * this.#capacity, (slot + 1) * this.#capacity);
    this.#lengths[slot] = 0;
  }
}
