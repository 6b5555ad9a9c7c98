/** @file Qwen2-VL's image processor: smart_resize, antialiased bicubic as PIL's, normalisation, patches. */
import { join } from 'node:path';
import { readJsonFile } from '@frame-thinker/checkpoint';
import { InputError, invariant } from '@frame-thinker/core';

/** uint8 RGB, row-major. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export interface ImageSize {
  readonly width: number;
  readonly height: number;
}

/** preprocessor_config.json, as far as it acts. */
export interface ImageProcessorConfig {
  readonly patchSize: number;
  readonly temporalPatchSize: number;
  readonly mergeSize: number;
  readonly minPixels: number;
  readonly maxPixels: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly rescaleFactor: number;
}

export interface ProcessedImage {
  /** [grid t·h·w, 3 · temporalPatchSize · patchSize²]; rows by merge blocks, a row channel x time x y x x. */
  pixelValues: Float32Array;
  /** In patches. */
  gridThw: [number, number, number];
  /** image_pads that it takes: t·h·w / mergeSize². */
  tokens: number;
}

/** Reads preprocessor_config.json. @throws InputError naming the file and the key. */
export function loadImageProcessorConfig(dir: string): ImageProcessorConfig {
  const path = join(dir, 'preprocessor_config.json');
  const json = readJsonFile(path) as Record<string, unknown> | null;
  const number = (key: string, ...values: unknown[]): number => {
    const value = values.find((v) => v !== undefined && v !== null);
    if (typeof value === 'number' && value > 0) return value;
    throw new InputError(`${path}: ${key} is ${JSON.stringify(value)}, not a positive number`);
  };
  const triple = (key: string): number[] => {
    const value = json?.[key];
    if (Array.isArray(value) && value.length === 3 && value.every((v) => typeof v === 'number')) return value;
    throw new InputError(`${path}: ${key} is ${JSON.stringify(value)}, not three numbers`);
  };
  for (const key of ['do_resize', 'do_rescale', 'do_normalize'])
    if (json?.[key] === false) throw new InputError(`${path}: ${key}: false is not supported`);
  if (json?.resample !== undefined && json.resample !== 3)
    throw new InputError(`${path}: resample ${JSON.stringify(json.resample)} is not supported; 3 (bicubic) is`);
  // Newer folders give the pixel limits as size.shortest_edge and size.longest_edge.
  const size = (json?.size ?? {}) as Record<string, unknown>;
  return {
    patchSize: number('patch_size', json?.patch_size),
    temporalPatchSize: number('temporal_patch_size', json?.temporal_patch_size),
    mergeSize: number('merge_size', json?.merge_size),
    minPixels: number('min_pixels', json?.min_pixels, size.shortest_edge),
    maxPixels: number('max_pixels', json?.max_pixels, size.longest_edge),
    mean: triple('image_mean'),
    std: triple('image_std'),
    rescaleFactor: number('rescale_factor', json?.rescale_factor, 1 / 255),
  };
}

/** Python's round: halves go to the even neighbour. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/**
 * Sides rounded to multiples of patchSize · mergeSize, scaled to lie within the pixel limits (transformers' smart_resize).
 * @throws InputError when one side is more than 200 times the other.
 */
export function smartResize({ width, height }: ImageSize, config: ImageProcessorConfig): ImageSize {
  const factor = config.patchSize * config.mergeSize;
  const { minPixels, maxPixels } = config;
  if (!(width > 0 && height > 0) || Math.max(width, height) / Math.min(width, height) > 200)
    throw new InputError(
      `an image of ${width}x${height} cannot be shown: its sides must be within 200 times each other`,
    );
  const fit = (side: number) => roundHalfEven(side / factor) * factor;
  let [h, w] = [fit(height), fit(width)];
  if (h * w > maxPixels) {
    const beta = Math.sqrt((height * width) / maxPixels);
    h = Math.max(factor, Math.floor(height / beta / factor) * factor);
    w = Math.max(factor, Math.floor(width / beta / factor) * factor);
  } else if (h * w < minPixels) {
    const beta = Math.sqrt(minPixels / (height * width));
    h = Math.ceil((height * beta) / factor) * factor;
    w = Math.ceil((width * beta) / factor) * factor;
  }
  return { width: w, height: h };
}

/** image_pads of an image of this size. */
export function imagePadCount(size: ImageSize, config: ImageProcessorConfig): number {
  const { width, height } = smartResize(size, config);
  return (width * height) / (config.patchSize * config.mergeSize) ** 2;
}

/** Bits that PIL keeps below the point of its 8-bit weights. */
const PRECISION = 22;

function cubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((d - 5) * d + 8) * d * a - 4 * a : 0;
}

/** Of each output position: the first input position and its fixed-point weights. */
function bicubicWeights(from: number, to: number): { start: number; weights: Int32Array }[] {
  const scale = from / to;
  const filterScale = Math.max(1, scale);
  const support = 2 * filterScale;
  return Array.from({ length: to }, (_, i) => {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const exact = Array.from({ length: end - start }, (_, j) => cubic((j + start - center + 0.5) / filterScale));
    const sum = exact.reduce((total, w) => total + w, 0);
    const weights = Int32Array.from(exact, (w) => {
      const fixed = (w / sum) * 2 ** PRECISION;
      return Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    });
    return { start, weights };
  });
}

const HALF = 2 ** (PRECISION - 1);

function resizeRows({ width, height, data }: RgbImage, to: number): RgbImage {
  if (to === width) return { width, height, data };
  const output = new Uint8ClampedArray(to * height * 3);
  const positions = bicubicWeights(width, to);
  for (let y = 0, out = 0; y < height; y++)
    for (let x = 0; x < to; x++, out += 3) {
      const { start, weights } = positions[x]!;
      let [r, g, b] = [HALF, HALF, HALF];
      for (let j = 0, from = (y * width + start) * 3; j < weights.length; j++, from += 3) {
        const w = weights[j]!;
        r += data[from]! * w;
        g += data[from + 1]! * w;
        b += data[from + 2]! * w;
      }
      output[out] = r >> PRECISION;
      output[out + 1] = g >> PRECISION;
      output[out + 2] = b >> PRECISION;
    }
  return { width: to, height, data: new Uint8Array(output.buffer) };
}

function resizeColumns({ width, height, data }: RgbImage, to: number): RgbImage {
  if (to === height) return { width, height, data };
  const stride = width * 3;
  const output = new Uint8ClampedArray(stride * to);
  const sums = new Int32Array(stride);
  for (const [y, { start, weights }] of bicubicWeights(height, to).entries()) {
    sums.fill(HALF);
    for (let j = 0, from = start * stride; j < weights.length; j++) {
      const w = weights[j]!;
      for (let i = 0; i < stride; i++, from++) sums[i]! += data[from]! * w;
    }
    for (let i = 0, out = y * stride; i < stride; i++, out++) output[out] = sums[i]! >> PRECISION;
  }
  return { width, height: to, data: new Uint8Array(output.buffer) };
}

/**
 * PIL's Image.resize(size, BICUBIC), bit for bit: two passes, uint8 in between, a = −0.5, the filter widened when
 * shrinking. Along x first, but along y where the height shrinks by more than twice what the width does: that order was
 * measured on Pillow 13 for every relation of sizes, and matters because values are rounded and clipped in between.
 */
export function resizeBicubic(image: RgbImage, size: ImageSize): RgbImage {
  const { width, height, data } = image;
  invariant(data.length === width * height * 3, `an image of ${width}x${height} has ${width * height * 3} bytes`);
  return height - size.height > 2 * Math.max(0, width - size.width)
    ? resizeRows(resizeColumns(image, size.height), size.width)
    : resizeColumns(resizeRows(image, size.width), size.height);
}

/** Resizes, normalises and cuts an image into the rows that the vision tower takes. */
export function processImage(image: RgbImage, config: ImageProcessorConfig): ProcessedImage {
  const { patchSize: p, mergeSize: m, temporalPatchSize, mean, std, rescaleFactor } = config;
  const { width, height, data } = resizeBicubic(image, smartResize(image, config));
  const [rows, columns] = [height / p, width / p];
  // value = (byte · rescaleFactor − mean) / std has 256 results a channel.
  const values = mean.map((mu, c) => Float32Array.from({ length: 256 }, (_, v) => (v * rescaleFactor - mu) / std[c]!));
  const pixelValues = new Float32Array(rows * columns * 3 * temporalPatchSize * p * p);
  let at = 0;
  for (let blockRow = 0; blockRow < rows; blockRow += m)
    for (let blockColumn = 0; blockColumn < columns; blockColumn += m)
      for (let row = blockRow; row < blockRow + m; row++)
        for (let column = blockColumn; column < blockColumn + m; column++)
          for (let c = 0; c < 3; c++) {
            const first = at;
            const table = values[c]!;
            for (let y = row * p; y < (row + 1) * p; y++) {
              let from = (y * width + column * p) * 3 + c;
              for (let x = 0; x < p; x++, from += 3) pixelValues[at++] = table[data[from]!]!;
            }
            // The other frames of the temporal patch are the same image.
            for (let t = 1; t < temporalPatchSize; t++, at += p * p) pixelValues.copyWithin(at, first, first + p * p);
          }
  return { pixelValues, gridThw: [1, rows, columns], tokens: (rows * columns) / (m * m) };
}
