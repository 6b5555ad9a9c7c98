import { createHash } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  imagePadCount,
  loadImageProcessorConfig,
  processImage,
  type RgbImage,
  resizeBicubic,
  smartResize,
} from './image-processor.ts';

const model = join(import.meta.dirname, '../../../tests/fixtures/qwen/model');
const config = loadImageProcessorConfig(model);

function pattern(width: number, height: number, k: number): RgbImage {
  const data = new Uint8Array(width * height * 3);
  let at = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      data[at++] = 7 * x + 3 * y + 37 * k;
      data[at++] = Math.floor((x * x) / 16) + 5 * y + 11 * k;
      data[at++] = ((Math.floor(x / 8) + Math.floor(y / 8)) % 2) * 200 + ((x * y + k) % 56);
    }
  return { width, height, data };
}

describe('resizeBicubic', () => {
  // sha256 of Image.fromarray(pattern).resize((W, H), Image.BICUBIC).tobytes() in Pillow 13.0.0.
  it.each([
    [64, 48, 1, 28, 28, '727f7629875368f501313d1e27a6b6852d5ce88ebed48732d23f4f60bbdf0919'],
    [64, 48, 2, 84, 56, 'e3b4ebe921d467293bc44c350154beaa536716ad20ea01f61ce8354fd1bc9bf9'],
    [50, 90, 3, 56, 28, 'e81ce7e38caf8da7106c5b803b0e1b805f14d1eadc969de305d1492fd6883a20'],
    [50, 90, 4, 45, 80, '19f95342c0ce178b309a471d5ff0dddd727d43f0c69dafc8a07f5fcfcd537755'],
    [50, 90, 5, 45, 79, '0a6356a9bf84bc569e6d34c49c2b438ac91e93ed190676c562b02649dc67423f'],
    [31, 17, 6, 31, 28, '304b2800d048edaca7d87a8648587f301600234b04ec635852dcb3b836548737'],
    [200, 120, 7, 112, 56, 'd12b11f918b3c5805a5deb3d89407c14a1529efd886956b3b21ecfd3d307e15c'],
  ])('%ix%i (%i) to %ix%i equals Pillow', (width, height, k, toWidth, toHeight, sha256) => {
    const { data } = resizeBicubic(pattern(width, height, k), { width: toWidth, height: toHeight });
    expect(createHash('sha256').update(data).digest('hex')).toBe(sha256);
  });

  it('keeps a plain colour and the size that it has', () => {
    const plain = { width: 9, height: 7, data: new Uint8Array(9 * 7 * 3).fill(77) };
    expect(resizeBicubic(plain, { width: 9, height: 7 }).data).toEqual(plain.data);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), (width, height) => {
        expect(resizeBicubic(plain, { width, height }).data).toEqual(new Uint8Array(width * height * 3).fill(77));
      }),
      { numRuns: 30 },
    );
  });
});

describe('smartResize', () => {
  it('gives multiples of 28 within the pixel limits, once and for all', () => {
    const side = fc.integer({ min: 14, max: 2000 });
    const limits = { ...config, minPixels: 56 * 56, maxPixels: 1280 * 28 * 28 };
    fc.assert(
      fc.property(side, side, (width, height) => {
        const size = smartResize({ width, height }, limits);
        expect([size.width % 28, size.height % 28]).toEqual([0, 0]);
        expect(size.width * size.height).toBeLessThanOrEqual(limits.maxPixels);
        expect(size.width * size.height).toBeGreaterThanOrEqual(limits.minPixels);
        expect(smartResize(size, limits)).toEqual(size);
      }),
    );
  });

  it('knows the sizes of the regimes', () => {
    expect(imagePadCount({ width: 640, height: 360 }, config)).toBe(299);
    expect(imagePadCount({ width: 448, height: 252 }, config)).toBe(144);
    expect(imagePadCount({ width: 112, height: 56 }, config)).toBe(8);
    expect(() => smartResize({ width: 20_100, height: 100 }, config)).toThrow(InputError);
    expect(() => smartResize({ width: 0, height: 100 }, config)).toThrow(InputError);
  });
});

describe('processImage', () => {
  it('orders rows by 2x2 blocks and a row by channel, time, y, x', () => {
    const image = pattern(84, 56, 3);
    const { pixelValues, gridThw, tokens } = processImage(image, config);
    expect([gridThw, tokens, pixelValues.length]).toEqual([[1, 4, 6], 6, 24 * 1176]);
    const value = (row: number, column: number, c: number, y: number, x: number) =>
      (image.data[((row * 14 + y) * 84 + column * 14 + x) * 3 + c]! / 255 - config.mean[c]!) / config.std[c]!;
    for (const [index, row, column] of [
      [0, 0, 0],
      [1, 0, 1],
      [2, 1, 0],
      [3, 1, 1],
      [4, 0, 2],
      [12, 2, 0],
      [23, 3, 5],
    ] as const)
      for (const [c, t, y, x] of [
        [0, 0, 0, 0],
        [1, 0, 3, 13],
        [2, 1, 13, 5],
      ] as const)
        expect(pixelValues[index * 1176 + ((c * 2 + t) * 14 + y) * 14 + x]).toBeCloseTo(value(row, column, c, y, x), 5);
  });

  it('refuses what it would get wrong', () => {
    const dir = mkdtempSync(join(tmpdir(), 'images-'));
    const load = (change: object) => {
      writeFileSync(
        join(dir, 'preprocessor_config.json'),
        JSON.stringify({
          patch_size: 14,
          temporal_patch_size: 2,
          merge_size: 2,
          size: { shortest_edge: 3136, longest_edge: 12845056 },
          image_mean: [0.5, 0.5, 0.5],
          image_std: [0.5, 0.5, 0.5],
          ...change,
        }),
      );
      return loadImageProcessorConfig(dir);
    };
    expect(load({})).toMatchObject({ minPixels: 3136, maxPixels: 12845056 });
    expect(() => load({ do_normalize: false })).toThrow('do_normalize: false is not supported');
    expect(() => load({ resample: 2 })).toThrow('resample 2 is not supported');
    expect(() => load({ image_std: [1] })).toThrow('image_std is [1]');
    expect(() => load({ patch_size: 'x' })).toThrow('patch_size is "x"');
    expect(() => loadImageProcessorConfig(join(dir, 'none'))).toThrow(InputError);
  });
});
