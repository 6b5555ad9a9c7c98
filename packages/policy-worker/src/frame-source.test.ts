import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadImageProcessorConfig } from '@frame-thinker/qwen-vl';
import { createFrameStore, renderScene } from '@frame-thinker/video';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FrameLibrary } from './frame-library.ts';
import { frameSource } from './frame-source.ts';

const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-source-'));
const [red, blue] = [join(folder, 'red.mp4'), join(folder, 'blue.mp4')];
const size = { width: 56, height: 28 };
let library: FrameLibrary;

beforeAll(async () => {
  const scene = { ...size, fps: 10, boxes: [] };
  await renderScene({ ...scene, frames: 30, background: [250, 0, 0] }, red);
  await renderScene({ ...scene, frames: 12, background: [0, 0, 250] }, blue);
  const model = join(process.env.GOLDEN_DIR ?? join(import.meta.dirname, '../../../tests/fixtures'), 'qwen/model');
  library = new FrameLibrary(createFrameStore(), loadImageProcessorConfig(model));
});
afterAll(async () => {
  await library.close();
  rmSync(folder, { recursive: true });
});

/** Mean of the first patch row's red and blue channels, as the model gets them. */
const colours = async (refs: Awaited<ReturnType<FrameLibrary['get']>>) =>
  (await library.images(refs)).map(({ pixels }) => ({ red: pixels[0]!, blue: pixels[2 * 2 * 14 * 14]! }));

describe('frames of looks', () => {
  it("are the video's own, grey, or another video's of the same size and number", async () => {
    const own = await frameSource(library, undefined).get(red, [3, 20], size);
    const grey = await frameSource(library, { kind: 'grey', level: 128 }).get(red, [3, 20], size);
    const others = frameSource(library, { kind: 'other', videos: [red, blue] });
    const other = await others.get(red, [3, 20], size);
    for (const refs of [own, grey, other])
      expect(refs.map(({ width, height }) => ({ width, height }))).toEqual([size, size]);
    expect(other.map(({ video, index }) => [video, index])).toEqual([
      [blue, 3],
      [blue, 11],
    ]);
    const [ofOwn, ofGrey, ofOther] = [await colours(own), await colours(grey), await colours(other)];
    for (const i of [0, 1]) {
      expect(ofOwn[i]!.red).toBeGreaterThan(ofOwn[i]!.blue + 2);
      expect(Math.abs(ofGrey[i]!.red - ofGrey[i]!.blue)).toBeLessThan(0.5);
      expect(ofOther[i]!.blue).toBeGreaterThan(ofOther[i]!.red + 2);
    }
    expect(await others.probe(red)).toMatchObject({ totalFrames: 30 });
  });

  it('refuse a video that has no other, and pixels of another hash', async () => {
    const alone = frameSource(library, { kind: 'other', videos: [red] });
    await expect(alone.get(red, [0], size)).rejects.toThrow(/no other video/);
    const [ref] = await library.get(red, [0], size);
    await expect(library.images([{ ...ref!, sha256: 'f'.repeat(64) }])).rejects.toThrow(/other pixels/);
  });
});
