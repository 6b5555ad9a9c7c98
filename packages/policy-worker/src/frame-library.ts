/** @file The frames that the model sees, by reference: decoded exactly, checked against their hash, made into model inputs. */
import { createHash } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FrameSource, Size, VideoFacts } from '@frame-thinker/agent-env';
import { type FrameRef, type ImageSource, RunError } from '@frame-thinker/core';
import {
  type ImageInput,
  type ImageProcessorConfig,
  imagePadCount,
  processImage,
  smartResize,
} from '@frame-thinker/qwen-vl';
import { type FrameStore, frameRef, probeVideo, type RgbFrame } from '@frame-thinker/video';
import { type InlineImage, workerFolder } from '@frame-thinker/worker-pool';

const hashOf = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

/** A model input whose pixel values are made when they are first read: those of cached features are never needed. */
function lazyImage(
  image: Pick<RgbFrame, 'width' | 'height' | 'data'>,
  sha256: string,
  config: ImageProcessorConfig,
): ImageInput {
  const { width, height } = smartResize(image, config);
  let pixels: Float32Array | undefined;
  return {
    key: `${sha256} ${image.width}x${image.height}`,
    grid: [1, height / config.patchSize, width / config.patchSize],
    get pixels() {
      pixels ??= processImage(image, config).pixelValues;
      return pixels;
    },
  };
}

export class FrameLibrary implements FrameSource {
  readonly #store: FrameStore;
  readonly #config: ImageProcessorConfig;
  readonly #probes = new Map<string, Promise<VideoFacts>>();
  /** Hash of a stored frame's pixels: frames are shared and never written. */
  readonly #hashes = new WeakMap<Uint8Array, string>();
  /** Images given as pixels, by hash. */
  readonly #given = new Map<string, RgbFrame>();
  #encodedFolder: string | undefined;

  constructor(store: FrameStore, config: ImageProcessorConfig) {
    this.#store = store;
    this.#config = config;
  }

  probe(video: string): Promise<VideoFacts> {
    const known = this.#probes.get(video);
    if (known) return known;
    const probe = probeVideo(video).then(({ width, height, fps, totalFrames }) => ({
      width,
      height,
      fps,
      totalFrames,
    }));
    this.#probes.set(video, probe);
    probe.catch(() => this.#probes.delete(video));
    return probe;
  }

  async get(video: string, indices: readonly number[], size?: Size): Promise<FrameRef[]> {
    const frames = await this.#store.get(video, indices, size);
    return frames.map((frame) => {
      const ref = frameRef(frame, video);
      this.#hashes.set(frame.data, ref.sha256);
      return ref;
    });
  }

  /** A prompt's image as a reference that `images` finds again. */
  async reference(image: ImageSource): Promise<FrameRef> {
    if (image.kind === 'frame') return image.frame;
    if (image.kind === 'path') return (await this.get(image.path, [0]))[0]!;
    if (image.kind === 'bytes') {
      this.#encodedFolder ??= workerFolder('images');
      const path = join(this.#encodedFolder, hashOf(image.bytes));
      writeFileSync(path, image.bytes);
      return (await this.get(path, [0]))[0]!;
    }
    const { width, height, data } = image;
    const sha256 = hashOf(data);
    this.#given.set(sha256, { index: 0, width, height, data });
    return { video: '', index: 0, width, height, sha256 };
  }

  /** image_pads that the model takes for an image of this size. */
  tokensOf(size: Size): number {
    return imagePadCount(size, this.#config);
  }

  /**
   * The model inputs of frames, in order: from the store, or decoded again.
   * @throws RunError when a frame's pixels are not those that its reference names.
   */
  async images(refs: readonly FrameRef[]): Promise<ImageInput[]> {
    const found = new Map<FrameRef, RgbFrame>();
    const wanted = new Map<string, FrameRef[]>();
    for (const ref of refs) {
      const given = this.#given.get(ref.sha256);
      if (given) found.set(ref, given);
      else {
        const key = `${ref.width}x${ref.height} ${ref.video}`;
        wanted.set(key, [...(wanted.get(key) ?? []), ref]);
      }
    }
    await Promise.all(
      [...wanted.values()].map(async (group) => {
        const { video, width, height } = group[0]!;
        const frames = await this.#store.get(
          video,
          group.map((ref) => ref.index),
          { width, height },
        );
        for (const [i, ref] of group.entries()) found.set(ref, frames[i]!);
      }),
    );
    return refs.map((ref) => {
      const frame = found.get(ref)!;
      const sha256 = this.#hashes.get(frame.data) ?? hashOf(frame.data);
      this.#hashes.set(frame.data, sha256);
      if (ref.sha256 !== '' && sha256 !== ref.sha256)
        throw new RunError(
          `${ref.video}: frame ${ref.index} at ${ref.width}x${ref.height} has other pixels than when it was shown (sha256 ${sha256.slice(0, 12)}…, was ${ref.sha256.slice(0, 12)}…): the file or the decoder changed`,
        );
      return lazyImage(frame, sha256, this.#config);
    });
  }

  /** Model inputs of images that came with a batch. */
  inline(images: readonly InlineImage[]): ImageInput[] {
    return images.map((image) => lazyImage(image, hashOf(image.data), this.#config));
  }

  async close(): Promise<void> {
    if (this.#encodedFolder) rmSync(this.#encodedFolder, { recursive: true, force: true });
    await this.#store.close();
  }
}
