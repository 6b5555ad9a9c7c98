/** @file Weights, AdamW moments and gradient sums in one flat WebAssembly memory: [weights | exp_avg | exp_avg_sq | sums]. */
import { InputError } from '@frame-thinker/core';
import { GraphError, type ParameterSet, type ParameterSpec } from '@frame-thinker/graph';
import { type AdamwKernel, createAdamwKernel, createMemory, type WasmMemory } from './adamw-kernel.ts';
import type { BoundParameters } from './bound-parameters.ts';
import { createGradientBuffer } from './gradient-buffer.ts';
import { layOut, type ParameterLayout, type Slot, slotOf } from './parameter-layout.ts';

/** Weights, moments and float64 sums (20 bytes a parameter) must fit the 4 GiB that a WebAssembly memory may have. */
export const TRAINABLE_LIMIT = 200_000_000;
const KINDS = ['weight', 'exp_avg', 'exp_avg_sq'] as const;
type Kind = (typeof KINDS)[number];
type AdamwOptions = Parameters<ParameterSet['adamw']>[0];

/** clip_grad_norm_'s guard against a norm of 0. */
const NORM_EPS = 1e-6;

/** Slots that follow each other and share `decay`, as one range. */
function decayRanges(slots: Iterable<Slot>): { start: number; count: number; decay: boolean }[] {
  const ranges: { start: number; count: number; decay: boolean }[] = [];
  for (const { spec, start, padded } of slots) {
    const decay = spec.decay !== false;
    const last = ranges.at(-1);
    if (last && last.decay === decay) last.count += padded;
    else ranges.push({ start, count: padded, decay });
  }
  return ranges;
}

/**
 * A set that can be trained. New weights, moments and sums are zeros.
 * @throws InputError above TRAINABLE_LIMIT parameters.
 */
export function createTrainingParameters(specs: readonly ParameterSpec[]): BoundParameters {
  const layout: ParameterLayout = layOut(specs);
  const bytes = layout.padded * 20;
  if (layout.size > TRAINABLE_LIMIT || bytes > 2 ** 32)
    throw new InputError(
      `training ${(layout.size / 1e6).toFixed(0)} M parameters: this engine trains up to ${TRAINABLE_LIMIT / 1e6} M; train a smaller model, or one on a worker with GPUs`,
    );
  let memory: WasmMemory | undefined = createMemory(bytes);
  let kernel: AdamwKernel | undefined = createAdamwKernel(memory);
  const live = (): { memory: WasmMemory; kernel: AdamwKernel } => {
    if (!memory || !kernel) throw new GraphError('parameters: used after release');
    return { memory, kernel };
  };
  const sumsAt = 12 * layout.padded;
  const sums = (): Float64Array => new Float64Array(live().memory.buffer, sumsAt, layout.padded);
  const view = (name: string, kind: Kind): Float32Array => {
    const { start, size } = slotOf(layout.slots, name);
    return new Float32Array(live().memory.buffer, 4 * (KINDS.indexOf(kind) * layout.padded + start), size);
  };
  const put = (name: string, kind: Kind, data: Float32Array): void => {
    slotOf(layout.slots, name, data.length);
    view(name, kind).set(data);
  };
  const ranges = decayRanges(layout.slots.values());
  let version = 0;

  return {
    specs,
    step: 0,
    get version() {
      return version;
    },
    gradients: createGradientBuffer(layout, sums),
    view: (name) => view(name, 'weight'),
    read: (name, kind = 'weight') => view(name, kind).slice(),
    write(name, data) {
      put(name, 'weight', data);
      version += 1;
    },
    writeMoment: put,
    adamw({ lr, betas: [beta1, beta2], eps, weightDecay, maxNorm }: AdamwOptions) {
      const { kernel } = live();
      const gradNorm = Math.sqrt(kernel.sum_of_squares(sumsAt, layout.padded));
      if (!Number.isFinite(gradNorm)) {
        sums().fill(0);
        return { gradNorm, applied: false };
      }
      const scale = Math.min(1, maxNorm / (gradNorm + NORM_EPS));
      this.step += 1;
      const rate = lr / (1 - beta1 ** this.step);
      const reciprocalSqrt = 1 / Math.sqrt(1 - beta2 ** this.step);
      for (const { start, count, decay } of ranges) {
        const keep = decay ? 1 - lr * weightDecay : 1;
        const [p, m, v] = [0, 1, 2].map((region) => 4 * (region * layout.padded + start)) as [number, number, number];
        const g = sumsAt + 8 * start;
        kernel.adamw(p, m, v, g, count, scale, 1 - beta1, beta2, 1 - beta2, keep, rate, reciprocalSqrt, eps);
      }
      version += 1;
      return { gradNorm, applied: true };
    },
    release() {
      memory = undefined;
      kernel = undefined;
    },
  };
}
