/** @file Runs the vision tower: images of equal grid in one batch, features cached under the current weights. */
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import type { Grid } from './positions.ts';
import { createProgramCache } from './program-cache.ts';
import { visionPlan } from './vision-plan.ts';
import { visionGraph } from './vision-tower.ts';

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
  const width = vision.channels * vision.temporalPatch * vision.patch ** 2;
  const programs = createProgramCache({ engine, parameters, size: 16 });
  const cache = new Map<string, Float32Array>();
  let version = parameters.version;

  const pixelsOf = (batch: VisionBatch, images: readonly ImageInput[]) => {
    const { patches } = visionPlan(config, batch.grid);
    const data = new Float32Array(batch.size * patches * width);
    batch.members.forEach((member, i) => {
      const { pixels, key } = images[member]!;
      if (pixels.length !== patches * width)
        throw new RangeError(`image ${key}: ${pixels.length} pixel values, its grid needs ${patches * width}`);
      data.set(pixels, i * patches * width);
    });
    return { dtype: 'float32' as const, shape: [batch.size * patches, width], data };
  };
  const program = (batch: VisionBatch, backward: boolean) => ({
    key: `vision ${batch.grid.join('x')} x ${batch.size}${backward ? ' backward' : ''}`,
    build: () => visionGraph(config, { grid: batch.grid, count: batch.size, backward }),
  });
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
        const known = cache.get(image.key);
        if (!known) todo.set(image.key, image);
        else {
          features.set(image.key, known);
          remember(image.key, known);
        }
      }
      const fresh = [...todo.values()];
      for (const batch of planBatches(config, fresh)) {
        const { key, build } = program(batch, false);
        const out = await programs.run(key, build, { pixels: pixelsOf(batch, fresh) });
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
        const { key, build } = program(batch, true);
        const out = await programs.run(key, build, {
          pixels: pixelsOf(batch, images),
          d_features: { dtype: 'float32', shape: [batch.size * tokens, hidden], data: cotangents },
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
