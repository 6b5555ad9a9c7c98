import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSafetensors } from '@frame-thinker/checkpoint';
import { loadImageProcessorConfig, loadTokenizer, processImage, type RgbImage } from '@frame-thinker/qwen-vl';
import { describe, expect, it } from 'vitest';
import { goldenDir, hasGolden } from './qwen-fixtures.ts';

const qwen = join(goldenDir, 'qwen');
const readJson = (name: string) => JSON.parse(readFileSync(join(qwen, name), 'utf8'));

interface TextRow {
  text: string;
  ids: number[];
  decoded: string;
  decoded_skip: string;
}

interface ImageRow {
  width: number;
  height: number;
  k: number;
  min_pixels: number;
  max_pixels: number;
  resized: [number, number];
  grid_thw: [number, number, number];
  shape: [number, number];
  mean: number;
  std: number;
  first: number[];
  last: number[];
  unresized: boolean;
}

/** The formula of the fixtures' README. */
function pattern({ width, height, k }: { width: number; height: number; k: number }): RgbImage {
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

const meanDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / a.length;
const maxDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((max, value, i) => Math.max(max, Math.abs(value - b[i]!)), 0);

describe('golden qwen', () => {
  it.runIf(hasGolden('qwen/text.json'))('text.json', () => {
    const rows: TextRow[] = readJson('text.json');
    const tokenizer = loadTokenizer(join(qwen, 'model'));
    const wrong = rows.filter(
      ({ text, ids, decoded, decoded_skip }) =>
        JSON.stringify(tokenizer.encode(text)) !== JSON.stringify(ids) ||
        tokenizer.decode(ids) !== decoded ||
        tokenizer.decode(ids, { skipSpecialTokens: true }) !== decoded_skip,
    );
    console.log(`golden qwen/text.json: ${rows.length - wrong.length} of ${rows.length}`);
    expect(wrong).toEqual([]);
    expect(rows.length).toBeGreaterThan(0);
  });

  it.runIf(hasGolden('qwen/images.json'))('images.json', () => {
    const rows: ImageRow[] = readJson('images.json');
    const config = loadImageProcessorConfig(join(qwen, 'model'));
    const file = openSafetensors(join(qwen, 'images.safetensors'));
    const wrong: string[] = [];
    let worst = { exact: 0, resampled: 0 };
    for (const [i, row] of rows.entries()) {
      const { pixelValues, gridThw } = processImage(pattern(row), {
        ...config,
        minPixels: row.min_pixels,
        maxPixels: row.max_pixels,
      });
      const n = row.first.length;
      const whole = [...file.header.entries.keys()].find((name) => new RegExp(`(^|\\D)${i}(\\D|$)`).test(name));
      const pairs: [ArrayLike<number>, ArrayLike<number>][] = [
        [pixelValues.subarray(0, n), row.first],
        [pixelValues.subarray(-n), row.last],
      ];
      if (whole) pairs.push([pixelValues, file.read(whole).data as Float32Array]);
      const difference = Math.max(
        ...pairs.map(([a, b]) => (row.unresized ? maxDifference(a, b) : meanDifference(a, b))),
      );
      worst = {
        exact: Math.max(worst.exact, row.unresized ? difference : 0),
        resampled: Math.max(worst.resampled, row.unresized ? 0 : difference),
      };
      const mean = pixelValues.reduce((sum, v) => sum + v, 0) / pixelValues.length;
      const fits =
        JSON.stringify(gridThw) === JSON.stringify(row.grid_thw) &&
        pixelValues.length === row.shape[0] * row.shape[1] &&
        JSON.stringify([gridThw[1] * config.patchSize, gridThw[2] * config.patchSize]) ===
          JSON.stringify(row.resized) &&
        difference <= (row.unresized ? 1e-5 : 2e-2) &&
        Math.abs(mean - row.mean) <= (row.unresized ? 1e-5 : 2e-2);
      if (!fits) wrong.push(`image ${i} (${row.width}x${row.height}): grid ${gridThw}, difference ${difference}`);
    }
    file.close();
    console.log(
      `golden qwen/images.json: ${rows.length - wrong.length} of ${rows.length} (largest difference ${worst.exact.toExponential(1)} unresized, mean ${worst.resampled.toExponential(1)} resampled)`,
    );
    expect(wrong).toEqual([]);
    expect(rows.length).toBeGreaterThan(0);
  });
});
