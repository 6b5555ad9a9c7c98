/** @file Runs the vision tower: images of equal grid in one batch, features cached under the current weights. */
import { InputError } from '@frame-thinker/core';
import type { Engine, ParameterSet, Tensor } from '@frame-thinker/graph';
import type { QwenVLConfig, VisionConfig } from './config.ts';
import type { Grid } from './positions.ts';
import { createProgramCache } from './program-cache.ts';
import { visionPlan } from './vision-plan.ts';
import { visionBytes, visionGraph } from './vision-tower.ts';

export interface ImageInput {
  /** Equal keys mean equal pixels. */
  key: string;
  grid: Grid;
  /** [t·h·w, channels · temporalPatch · patch²] in the image processor's order. */
  pixels: Float32Array;
}

export interface VisionEncoder {
  /** Features of each image, [tokens, hidden] (shared memory: don't write). Images encoded under the current weights are not encoded again. */
  encode(images: readonly ImageInput[]): Promise<Float32Array[]>;
  /** Adds the tower's gradients for the cotangents (one of each image, [tokens, hidden]) to parameters.gradients. */
  backward(images: readonly ImageInput[], dFeatures: readonly Float32Array[]): Promise<void>;
  release(): Promise<void>;
}

/** Most floats of one layer's attention scores in a batch: bounds the memory of large images. */
const SCORE_BUDGET = 2 ** 25;
const LARGEST_BATCH = 64;

/** Cuts n images into batches of few sizes (powers of two), filling a batch with blanks when at least 3/4 of it is used. */
export function batchSizes(n: number, most: number): number[] {
  const sizes: number[] = [];
  for (let left = n; left > 0; ) {
    let size = 1;
    while (size < left && 2 * size <= most) size *= 2;
    if (left < 0.75 * size) size /= 2;
    sizes.push(size);
    left -= Math.min(left, size);
  }
  return sizes;
}

/** Whether all frames of each patch are equal, as a still image's are. */
function isStill(pixels: Float32Array, vision: VisionConfig): boolean {
  const size = vision.patch ** 2;
  const volume = vision.temporalPatch * size;
  for (let at = 0; at < pixels.length; at += volume)
    for (let i = at + size; i < at + volume; i++) if (pixels[i] !== pixels[i - size]) return false;
  return true;
}

/** The images of one program run; `size` >= members.length, the rest are blanks. */
interface VisionBatch {
  grid: Grid;
  size: number;
  /** Indices into the list of images. */
  members: number[];
}

function planBatches(config: QwenVLConfig, images: readonly ImageInput[]): VisionBatch[] {
  const byGrid = new Map<string, number[]>();
  images.forEach(({ grid }, i) => {
    const key = grid.join('x');
    const group = byGrid.get(key);
    if (group) group.push(i);
    else byGrid.set(key, [i]);
  });
  return [...byGrid.values()].flatMap((group) => {
    const { grid } = images[group[0]!]!;
    const { patches } = visionPlan(config, grid);
    const most = Math.max(1, Math.min(LARGEST_BATCH, Math.floor(SCORE_BUDGET / (config.vision.heads * patches ** 2))));
    let at = 0;
    return batchSizes(group.length, most).map((size) => {
      const members = group.slice(at, at + size);
      at += size;
      return { grid, size, members };
    });
  });
}

export function createVisionEncoder(options: {
  engine: Engine;
  parameters: ParameterSet;
  config: QwenVLConfig;
  /** Bound of the feature cache, in images (default 4096). */
  cacheImages?: number;
}): VisionEncoder {
  const { engine, parameters, config, cacheImages = 4096 } = options;
  const { vision, hidden } = config;
  const frame = vision.patch ** 2;
  const programs = createProgramCache({ engine, parameters, bytes: 1e9 });
  const cache = new Map<string, Float32Array>();
  let version = parameters.version;

  const known = new WeakMap<Float32Array, boolean>();
  const still = (pixels: Float32Array): boolean => {
    const value = known.get(pixels) ?? isStill(pixels, vision);
    known.set(pixels, value);
    return value;
  };

  /** Runs a batch; images whose frames repeat go in with one of them. */
  const run = (batch: VisionBatch, images: readonly ImageInput[], dFeatures?: Tensor) => {
    const { patches } = visionPlan(config, batch.grid);
    const members = batch.members.map((member) => images[member]!);
    const frames = members.every(({ pixels }) => still(pixels)) ? 1 : vision.temporalPatch;
    const width = vision.channels * frames * frame;
    const data = new Float32Array(batch.size * patches * width);
    members.forEach(({ pixels, key }, i) => {
      const expected = patches * vision.channels * vision.temporalPatch * frame;
      if (pixels.length !== expected)
        throw new InputError(`image ${key}: ${pixels.length} pixel values, its grid needs ${expected}`);
      const to = i * patches * width;
      if (frames === vision.temporalPatch) data.set(pixels, to);
      else
        for (let c = 0; c < patches * vision.channels; c++) {
          const from = c * vision.temporalPatch * frame;
          data.set(pixels.subarray(from, from + frame), to + c * frame);
        }
    });
    const shape = { grid: batch.grid, count: batch.size, frames, backward: dFeatures !== undefined };
    return programs.run(
      {
        key: `vision ${batch.grid.join('x')} x ${batch.size}${frames > 1 ? ` x ${frames} frames` : ''}${dFeatures ? ' backward' : ''}`,
        bytes: visionBytes(config, shape),
        build: () => visionGraph(config, shape),
      },
      {
        pixels: { dtype: 'float32', shape: [batch.size * patches, width], data },
        ...(dFeatures && { d_features: dFeatures }),
      },
    );
  };
  const remember = (key: string, features: Float32Array): void => {
    cache.delete(key);
    cache.set(key, features);
    for (const oldest of cache.keys()) {
      if (cache.size <= cacheImages) return;
      cache.delete(oldest);
    }
  };

  return {
    encode: async (images) => {
      if (parameters.version !== version) {
        cache.clear();
        version = parameters.version;
      }
      const features = new Map<string, Float32Array>();
      const todo = new Map<string, ImageInput>();
      for (const image of images) {
        const cached = cache.get(image.key);
        if (!cached) todo.set(image.key, image);
        else {
          features.set(image.key, cached);
          remember(image.key, cached);
        }
      }
      const fresh = [...todo.values()];
      for (const batch of planBatches(config, fresh)) {
        const out = await run(batch, fresh);
        const data = out.features!.data as Float32Array;
        const size = data.length / batch.size;
        batch.members.forEach((member, i) => {
          const one = data.slice(i * size, (i + 1) * size);
          features.set(fresh[member]!.key, one);
          if (parameters.version === version) remember(fresh[member]!.key, one);
        });
      }
      return images.map(({ key }) => features.get(key)!);
    },

    backward: async (images, dFeatures) => {
      for (const batch of planBatches(config, images)) {
        const { tokens } = visionPlan(config, batch.grid);
        const cotangents = new Float32Array(batch.size * tokens * hidden);
        batch.members.forEach((member, i) => {
          cotangents.set(dFeatures[member]!, i * tokens * hidden);
        });
        const out = await run(batch, images, {
          dtype: 'float32',
          shape: [batch.size * tokens, hidden],
          data: cotangents,
        });
        for (const [name, gradient] of Object.entries(out))
          parameters.gradients.accumulate(name, gradient.data as Float32Array);
      }
    },

    release: async () => {
      cache.clear();
      await programs.release();
    },
  };
}
