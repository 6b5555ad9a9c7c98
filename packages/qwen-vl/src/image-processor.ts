/** @file Qwen2-VL's image processor: smart_resize, antialiased bicubic as PIL's, normalisation, patches. */
import { InvariantError } from '@frame-thinker/core';

/** uint8 RGB, row-major. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** preprocessor_config.json, as far as it acts. */
export interface ImageProcessorConfig {
  patchSize: number;
  temporalPatchSize: number;
  mergeSize: number;
  minPixels: number;
  maxPixels: number;
  mean: readonly [number, number, number];
  std: readonly [number, number, number];
  rescaleFactor: number;
}

export interface ProcessedImage {
  /** [t·h·w of the grid, channels · temporalPatchSize · patchSize²], rows in 2x2 merge-block order. */
  pixelValues: Float32Array;
  /** In patches. */
  gridThw: [number, number, number];
  /** image_pads that it takes: t·h·w / mergeSize². */
  tokens: number;
}

/** Sides rounded to multiples of patch · merge within the pixel limits. @throws InputError for an aspect over 200. */
export function smartResize(
  _size: { width: number; height: number },
  _config: ImageProcessorConfig,
): { width: number; height: number } {
  throw new InvariantError('smartResize: not written yet');
}

/** image_pads of an image of this size. */
export function imagePadCount(_size: { width: number; height: number }, _config: ImageProcessorConfig): number {
  throw new InvariantError('imagePadCount: not written yet');
}

/** PIL's Image.resize(BICUBIC), bit for bit: a convolution with a = −0.5, widened when shrinking. */
export function resizeBicubic(_image: RgbImage, _size: { width: number; height: number }): RgbImage {
  throw new InvariantError('resizeBicubic: not written yet');
}

export function processImage(_image: RgbImage, _config: ImageProcessorConfig): ProcessedImage {
  throw new InvariantError('processImage: not written yet');
}

/** Reads preprocessor_config.json. @throws InputError */
export function loadImageProcessorConfig(_dir: string): ImageProcessorConfig {
  throw new InvariantError('loadImageProcessorConfig: not written yet');
}
