/** @file The reference ParameterSet: plain arrays, AdamW in float64 rounded to float32 weights and moments. */
import { GraphError } from './error.ts';
import { sizeOf } from './ops.ts';
import type { GradientBuffer, ParameterSet, ParameterSpec } from './types.ts';

type Kind = 'weight' | 'exp_avg' | 'exp_avg_sq';
type AdamW = Parameters<ParameterSet['adamw']>[0];

/** Where each parameter lies in a flat array. */
class Layout {
  readonly length: number;
  readonly #ranges = new Map<string, readonly [start: number, end: number]>();
  constructor(specs: readonly ParameterSpec[]) {
    let end = 0;
    for (const { name, shape } of specs) {
      if (this.#ranges.has(name)) throw new GraphError(`parameter ${name}: specified twice`);
      this.#ranges.set(name, [end, end + sizeOf(shape)]);
      end += sizeOf(shape);
    }
    this.length = end;
  }
  of<A extends Float32Array | Float64Array>(flat: A, name: string): A {
    const range = this.#ranges.get(name);
    if (!range) throw new GraphError(`parameter ${name}: not in this set`);
    return flat.subarray(...range) as A;
  }
}

function put(name: string, target: Float32Array | Float64Array, data: ArrayLike<number>): void {
  if (data.length !== target.length)
    throw new GraphError(`parameter ${name}: ${data.length} values, must be ${target.length}`);
  target.set(data);
}

class ReferenceGradients implements GradientBuffer {
  readonly #layout: Layout;
  readonly #sums: Float64Array;
  constructor(layout: Layout) {
    this.#layout = layout;
    this.#sums = new Float64Array(layout.length);
  }
  accumulate(name: string, data: Float32Array): void {
    const sum = this.#layout.of(this.#sums, name);
    if (data.length !== sum.length)
      throw new GraphError(`gradient of ${name}: ${data.length} values, must be ${sum.length}`);
    for (let i = 0; i < sum.length; i++) sum[i]! += data[i]!;
  }
  zero(): void {
    this.#sums.fill(0);
  }
  read(): Float64Array {
    return this.#sums.slice();
  }
  write(flat: Float64Array): void {
    put('gradients', this.#sums, flat);
  }
  get(name: string): Float64Array {
    return this.#layout.of(this.#sums, name).slice();
  }
}

export class ReferenceParameters implements ParameterSet {
  readonly specs: readonly ParameterSpec[];
  readonly gradients: GradientBuffer;
  step = 0;
  readonly #layout: Layout;
  readonly #flat: { readonly [K in Kind]: Float32Array };
  #version = 0;

  constructor(specs: readonly ParameterSpec[]) {
    this.specs = specs;
    this.#layout = new Layout(specs);
    const { length } = this.#layout;
    this.#flat = {
      weight: new Float32Array(length),
      exp_avg: new Float32Array(length),
      exp_avg_sq: new Float32Array(length),
    };
    this.gradients = new ReferenceGradients(this.#layout);
  }
  get version(): number {
    return this.#version;
  }
  write(name: string, data: Float32Array): void {
    put(name, this.#layout.of(this.#flat.weight, name), data);
    this.#version++;
  }
  writeMoment(name: string, kind: 'exp_avg' | 'exp_avg_sq', data: Float32Array): void {
    put(name, this.#layout.of(this.#flat[kind], name), data);
  }
  read(name: string, kind: Kind = 'weight'): Float32Array {
    return this.#layout.of(this.#flat[kind], name).slice();
  }
  adamw({ lr, betas: [beta1, beta2], eps, weightDecay, maxNorm }: AdamW): { gradNorm: number; applied: boolean } {
    const sums = this.gradients.read().map(Math.fround);
    const gradNorm = Math.sqrt(sums.reduce((total, x) => total + x * x, 0));
    this.gradients.zero();
    if (!Number.isFinite(gradNorm)) return { gradNorm, applied: false };
    this.step++;
    // torch.nn.utils.clip_grad_norm_: the factor is max / (norm + 1e-6), at most 1.
    const clip = Math.min(1, maxNorm / (gradNorm + 1e-6));
    const rate = lr / (1 - beta1 ** this.step);
    const correction = Math.sqrt(1 - beta2 ** this.step);
    for (const { name, decay = true } of this.specs) {
      const [p, m, v] = [this.#flat.weight, this.#flat.exp_avg, this.#flat.exp_avg_sq].map((flat) =>
        this.#layout.of(flat, name),
      ) as [Float32Array, Float32Array, Float32Array];
      const gradient = this.#layout.of(sums, name);
      const shrink = decay ? 1 - lr * weightDecay : 1;
      for (let i = 0; i < p.length; i++) {
        const d = gradient[i]! * clip;
        m[i] = beta1 * m[i]! + (1 - beta1) * d;
        v[i] = beta2 * v[i]! + (1 - beta2) * d * d;
        p[i] = p[i]! * shrink - (rate * m[i]!) / (Math.sqrt(v[i]!) / correction + eps);
      }
    }
    this.#version++;
    return { gradNorm, applied: true };
  }
  release(): void {
    this.#version++;
  }
}
