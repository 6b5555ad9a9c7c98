/** @file Probing a video, and reading frames of one video at one size. */
import { createHash } from 'node:crypto';
import { type FrameRef, InputError } from '@frame-thinker/core';
import { FrameUnavailableError } from './errors.ts';
import { ExactDecoder, type FrameDecoder } from './exact-decoder.ts';
import { FfmpegDecoder } from './ffmpeg-decoder.ts';
import { rotationOf, swapsSides } from './orientation.ts';
import { indexOf, type PacketIndex } from './packet-index.ts';
import type { OpenVideoOptions, RgbFrame, VideoInfo, VideoReader } from './types.ts';

/**
 * Size, rate, length and codec of the file's best video stream, from the cached packet index.
 * @throws InputError when the file is missing, empty, unreadable, or has no video frames.
 */
export async function probeVideo(path: string, options: { cacheDir?: string } = {}): Promise<VideoInfo> {
  return infoOf(path, await indexOf(path, options.cacheDir));
}

function infoOf(path: string, index: PacketIndex): VideoInfo {
  const fps = index.fps.num / index.fps.den;
  const turned = swapsSides(index.orientation);
  return {
    path,
    width: turned ? index.height : index.width,
    height: turned ? index.width : index.height,
    fps,
    fpsRational: { ...index.fps },
    totalFrames: index.pts.length,
    duration: index.pts.length / fps,
    codec: index.codec,
    rotation: rotationOf(index.orientation),
  };
}

/** A decoder with what the probe says about its file. */
export async function openDecoder(
  path: string,
  { decoder = 'node-av', cacheDir, ffmpegPath }: OpenVideoOptions,
): Promise<{ info: VideoInfo; decoder: FrameDecoder }> {
  const index = await indexOf(path, cacheDir);
  return {
    info: infoOf(path, index),
    decoder:
      decoder === 'ffmpeg' ? await FfmpegDecoder.open(path, index, ffmpegPath) : await ExactDecoder.open(path, index),
  };
}

/**
 * Opens a video for reading its frames by index at one size.
 * @throws InputError when the file is missing, empty, unreadable, or has no video frames, or the size is not positive integers.
 * @throws UnsupportedByDecoderError when the decoder `ffmpeg` cannot read the file exactly.
 */
export async function openVideo(path: string, options: OpenVideoOptions = {}): Promise<VideoReader> {
  if ((options.width === undefined) !== (options.height === undefined))
    throw new InputError(`${path}: give width and height, or neither`);
  const { info, decoder } = await openDecoder(path, options);
  const size = { width: options.width ?? info.width, height: options.height ?? info.height };
  checkSize(path, size);
  let queue: Promise<unknown> = Promise.resolve();
  let closed = false;
  return {
    info,
    frames(indices) {
      if (closed) throw new InputError(`${path}: the reader is closed`);
      const frames = queue.then(async () => pick(await decoder.decode(indices, size), indices));
      queue = frames.catch(() => undefined);
      return frames;
    },
    async close() {
      if (closed) return;
      closed = true;
      await queue;
      decoder.close();
    },
  };
}

export function checkSize(path: string, { width, height }: { width: number; height: number }): void {
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0))
    throw new InputError(`${path}: cannot be scaled to ${width}x${height}: sizes are positive integers`);
}

function pick(decoded: Map<number, RgbFrame | FrameUnavailableError>, indices: readonly number[]): RgbFrame[] {
  return indices.map((i) => {
    const frame = decoded.get(i)!;
    if (frame instanceof FrameUnavailableError) throw frame;
    return frame;
  });
}

/** What a trajectory keeps of a frame: where it is from, its size, and the sha256 of its RGB pixels. */
export function frameRef({ index, width, height, data }: RgbFrame, video: string): FrameRef {
  return { video, index, width, height, sha256: createHash('sha256').update(data).digest('hex') };
}
