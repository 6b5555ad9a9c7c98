/** @file Runs the vision tower: images of equal grid in one batch, features cached under the current weights. */
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import type { Grid } from './positions.ts';

export interface ImageInput {
  /** Equal keys mean equal pixels. */
  key: string;
  grid: Grid;
  /** [t·h·w, channels · temporalPatch · patch²] in the image processor's order. */
  pixels: Float32Array;
}

export interface VisionEncoder {
  /** Features of each image, [tokens, hidden]. Images encoded under the current weights are not encoded again. */
  encode(images: readonly ImageInput[]): Promise<Float32Array[]>;
  /** Adds the tower's gradients for the cotangents (one of each image, [tokens, hidden]) to parameters.gradients. */
  backward(images: readonly ImageInput[], dFeatures: readonly Float32Array[]): Promise<void>;
  release(): Promise<void>;
}

export function createVisionEncoder(_options: {
  engine: Engine;
  parameters: ParameterSet;
  config: QwenVLConfig;
  /** Bound of the feature cache, in images (default 4096). */
  cacheImages?: number;
}): VisionEncoder {
  throw new Error('not there yet');
}
