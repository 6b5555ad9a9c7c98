/** @file Seeded random shapes and tensors for tests. */
import { sizeOf } from './ops.ts';
import type { DType, Shape, Tensor } from './types.ts';

/** A small seeded stream of numbers (mulberry32). */
export class SampleSource {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** In [low, high). */
  uniform(low = 0, high = 1): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return low + (((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * (high - low);
  }
  /** An integer in [low, high]. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.uniform() * (high - low + 1));
  }
  shape(rank: number, most = 4): number[] {
    return Array.from({ length: rank }, () => this.integer(1, most));
  }
  float(shape: Shape, low = -2, high = 2): Tensor {
    const data = Float32Array.from({ length: sizeOf(shape) }, () => this.uniform(low, high));
    return { dtype: 'float32', shape, data };
  }
  int(shape: Shape, low: number, high: number): Tensor {
    return { dtype: 'int32', shape, data: Int32Array.from({ length: sizeOf(shape) }, () => this.integer(low, high)) };
  }
  bool(shape: Shape): Tensor {
    return { dtype: 'bool', shape, data: Uint8Array.from({ length: sizeOf(shape) }, () => this.integer(0, 1)) };
  }
  any(dtype: DType, shape: Shape): Tensor {
    return dtype === 'float32' ? this.float(shape) : dtype === 'int32' ? this.int(shape, -3, 3) : this.bool(shape);
  }
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
  /** A shape that broadcasts to `shape`: some axes 1, some leading axes missing. */
  narrowed(shape: Shape): number[] {
    return shape.slice(this.integer(0, shape.length)).map((d) => (this.uniform() < 0.3 ? 1 : d));
  }
}
