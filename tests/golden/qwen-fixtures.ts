/** @file Reads a fixture set of fixtures/qwen and puts its model on an engine. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSafetensors, type SafetensorsFile } from '@frame-thinker/checkpoint';
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import {
  type Grid,
  type ImageInput,
  loadImageProcessorConfig,
  loadWeights,
  parameterSpecs,
  parseConfig,
  processImage,
  type QwenVLConfig,
} from '@frame-thinker/qwen-vl';

export const goldenDir = process.env.GOLDEN_DIR ?? 'tests/fixtures';
const qwenDir = join(goldenDir, 'qwen');

/** Whether the set has the file; says so if not. */
export function hasGolden(name: string): boolean {
  const there = existsSync(join(goldenDir, name));
  if (!there) console.log(`golden ${name}: missing in ${goldenDir}`);
  return there;
}

export function readJson<T>(name: string): T {
  return JSON.parse(readFileSync(join(qwenDir, name), 'utf8')) as T;
}

/** The tensors of a safetensors file as float32, by name. */
export interface Tensors {
  names: readonly string[];
  /** undefined when there is none of the name. */
  get(name: string): Float32Array | undefined;
  shape(name: string): readonly number[];
}

function tensorsOf(file: SafetensorsFile): Tensors {
  const names = [...file.header.entries.keys()];
  return {
    names,
    get: (name) => (file.header.entries.has(name) ? (file.read(name).data as Float32Array) : undefined),
    shape: (name) => file.entry(name).shape,
  };
}

export function readTensors(name: string): Tensors {
  return tensorsOf(openSafetensors(join(qwenDir, name)));
}

export const modelConfig = (): QwenVLConfig => parseConfig(readJson('model/config.json'));

/** The fixture's weights in a parameter set of the engine. */
export async function loadModel(engine: Engine, config: QwenVLConfig): Promise<ParameterSet> {
  const parameters = engine.parameters(parameterSpecs(config));
  const file = openSafetensors(join(qwenDir, 'model/model.safetensors'));
  await loadWeights(parameters, {
    names: () => file.header.entries.keys(),
    shape: (name) => file.entry(name).shape,
    read: (name) => file.read(name).data as Float32Array,
  });
  return parameters;
}

/** The README's picture: [width, height, k]. */
export function formulaImage([width, height, k]: readonly [number, number, number]) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3;
      data[at] = 7 * x + 3 * y + 37 * k;
      data[at + 1] = Math.floor((x * x) / 16) + 5 * y + 11 * k;
      data[at + 2] = ((Math.floor(x / 8) + Math.floor(y / 8)) % 2) * 200 + ((x * y + k) % 56);
    }
  return { width, height, data };
}

/** The pictures through our image processor. */
export function processedImages(images: readonly (readonly [number, number, number])[]): ImageInput[] {
  const processor = loadImageProcessorConfig(join(qwenDir, 'model'));
  return images.map((image) => {
    const { pixelValues, gridThw } = processImage(formulaImage(image), processor);
    return { key: image.join('-'), grid: gridThw, pixels: pixelValues };
  });
}

/** Rows of `pixels` cut at the grids. */
export function cutPixels(pixels: Float32Array, grids: readonly Grid[], key: string): ImageInput[] {
  const width = pixels.length / grids.reduce((sum, [t, h, w]) => sum + t * h * w, 0);
  let at = 0;
  return grids.map((grid, i) => {
    const size = grid[0] * grid[1] * grid[2] * width;
    at += size;
    return { key: `${key}-${i}`, grid, pixels: pixels.subarray(at - size, at) };
  });
}

export function l2(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! ** 2;
  return Math.sqrt(sum);
}

/** Largest |a − b|; Infinity for different lengths or anything not finite. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= worst)) worst = Number.isNaN(d) ? Infinity : d;
  }
  return worst;
}

/** ‖a − b‖ / ‖b‖. */
export function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  return l2(Float64Array.from(a, (x, i) => x - b[i]!)) / l2(b);
}

/** Counts checks of one fixture file, so that all of them are made before the test fails. */
export class Tally {
  readonly failures: string[] = [];
  readonly #file: string;
  #total = 0;

  constructor(file: string) {
    this.#file = file;
  }

  /** `error` must be at most `limit`. */
  within(what: string, error: number, limit: number): void {
    this.#total++;
    if (!(error <= limit)) this.failures.push(`${what}: ${error} > ${limit}`);
  }

  equal(what: string, ok: boolean): void {
    this.within(what, ok ? 0 : 1, 0);
  }

  print(): void {
    console.log(`golden ${this.#file}: ${this.#total - this.failures.length} of ${this.#total}`);
  }
}
