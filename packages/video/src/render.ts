/** @file Rendering a scene to H.264 in MP4, by either renderer, atomically. */
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { explainWriteError, InputError, messageOf, RunError, temporaryName } from '@frame-thinker/core';
import { encodeScene } from './encoder.ts';
import { command, requireFfmpeg } from './ffmpeg-executable.ts';
import { checkScene, createPainter, frameRate } from './scene-painter.ts';
import type { RenderOptions, RenderResult, Scene } from './types.ts';

type Recipe = Required<Pick<RenderOptions, 'preset' | 'crf' | 'gop' | 'bFrames'>> & Pick<RenderOptions, 'onProgress'>;

/**
 * Renders a scene to `path` as H.264 (yuv420p, MP4, index at the front). The file appears under its name when complete.
 * @throws InputError for a scene that cannot be drawn, a full disk, or a missing executable; RunError when encoding fails.
 */
export async function renderScene(scene: Scene, path: string, options: RenderOptions = {}): Promise<RenderResult> {
  const started = performance.now();
  const { renderer = 'node-av', ffmpegPath, preset = 'ultrafast', crf = 28, gop = 48, bFrames = 0 } = options;
  const recipe: Recipe = { preset, crf, gop, bFrames, ...(options.onProgress && { onProgress: options.onProgress }) };
  checkScene(scene);
  const executable = renderer === 'ffmpeg' ? (await requireFfmpeg(ffmpegPath)).path : undefined;
  makeFolder(path);
  const temporary = temporaryName(path);
  try {
    if (executable === undefined) await renderInProcess(scene, temporary, recipe);
    else await renderByExecutable(scene, temporary, recipe, executable);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    if (error instanceof InputError) throw error;
    const explained = explainWriteError(error, path);
    throw explained === error ? new RunError(`${path}: rendering failed: ${messageOf(error)}`) : explained;
  }
  return { bytes: statSync(path).size, ms: performance.now() - started };
}

function makeFolder(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch (error) {
    throw new InputError(`${path}: its folder cannot be made (${messageOf(error)})`);
  }
}

function renderInProcess(scene: Scene, path: string, { preset, crf, gop, bFrames, onProgress }: Recipe): Promise<void> {
  return encodeScene(scene, path, {
    encoder: 'libx264',
    encoderOptions: { preset, crf: String(crf) },
    format: 'mp4',
    formatOptions: { movflags: '+faststart' },
    gop,
    bFrames,
    ...(onProgress && { onProgress }),
  });
}

/** The same pictures, drawn here and piped to the executable. */
async function renderByExecutable(scene: Scene, path: string, recipe: Recipe, executable: string): Promise<void> {
  const rate = frameRate(scene.fps);
  const { preset, crf, gop, bFrames, onProgress } = recipe;
  const encode = await command(executable);
  return new Promise((done, fail) => {
    encode
      .input(Readable.from(pictures(scene, onProgress), { objectMode: false, highWaterMark: 2 ** 20 }))
      .inputOptions([
        '-f rawvideo',
        '-pix_fmt yuv420p',
        `-video_size ${scene.width}x${scene.height}`,
        `-framerate ${rate.num}/${rate.den}`,
      ])
      .videoCodec('libx264')
      .outputOptions([`-preset ${preset}`, `-crf ${crf}`, `-g ${gop}`, `-bf ${bFrames}`, '-pix_fmt yuv420p'])
      .outputOptions(['-threads 1', '-movflags +faststart', '-f mp4'])
      .on('end', () => done())
      .on('error', (error: unknown, _stdout: unknown, stderr: unknown) => {
        fail(new Error(`${messageOf(error)} ${String(stderr ?? '').slice(-300)}`.trim()));
      })
      .save(`file:${resolve(path)}`);
  });
}

/** Raw yuv420p pictures, some at a time: the pipe keeps a chunk while the next is drawn. */
function* pictures(scene: Scene, onProgress: RenderOptions['onProgress']): Generator<Buffer> {
  const { width, height, frames } = scene;
  const luma = width * height;
  const picture = Buffer.alloc((luma * 3) / 2);
  const planes = {
    data: [picture.subarray(0, luma), picture.subarray(luma, (luma * 5) / 4), picture.subarray((luma * 5) / 4)],
    strides: [width, width / 2, width / 2],
  };
  const paint = createPainter(scene);
  const perChunk = Math.max(1, Math.floor(2 ** 20 / picture.length));
  for (let first = 0; first < frames; first += perChunk) {
    const count = Math.min(perChunk, frames - first);
    const chunk = Buffer.allocUnsafe(count * picture.length);
    for (let k = 0; k < count; k++) {
      paint(first + k, planes);
      chunk.set(picture, k * picture.length);
    }
    yield chunk;
    onProgress?.(first + count, frames);
  }
}
