/**
 * @file The second decoder: the ffmpeg executable, with the index and the method of the first. Frames are selected by their exact
 * time stamp, so that a wrong one cannot come out: a frame is there or missing.
 */
import { resolve } from 'node:path';
import { messageOf } from '@frame-thinker/core';
import { FrameUnavailableError, UnsupportedByDecoderError } from './errors.ts';
import type { DecodeResult, FrameDecoder, Size } from './exact-decoder.ts';
import { collect, command, passthroughOption, requireFfmpeg } from './ffmpeg-executable.ts';
import { orient, swapsSides } from './orientation.ts';
import type { PacketIndex } from './packet-index.ts';
import { lastAtMost } from './sorted.ts';

/** Frames fewer than this apart are decoded in one run: starting a process costs about as much. */
const RUN_GAP = 250;

export class FfmpegDecoder implements FrameDecoder {
  readonly #path: string;
  readonly #index: PacketIndex;
  readonly #executable: string;
  readonly #passthrough: string;

  private constructor(path: string, index: PacketIndex, executable: string, passthrough: string) {
    this.#path = path;
    this.#index = index;
    this.#executable = executable;
    this.#passthrough = passthrough;
  }

  /**
   * @throws UnsupportedByDecoderError for files that the command line does not seek exactly.
   * @throws InputError without an executable.
   */
  static async open(path: string, index: PacketIndex, executable?: string): Promise<FfmpegDecoder> {
    if (/\bmpegts\b/.test(index.container)) throw new UnsupportedByDecoderError(path, 'MPEG-TS does not seek exactly');
    if (index.sequential) throw new UnsupportedByDecoderError(path, 'its packets lack distinct time stamps');
    // Executables before FFmpeg 7 convert these to other RGB values.
    if (/\d(le|be)$/.test(index.pixelFormat))
      throw new UnsupportedByDecoderError(path, `${index.pixelFormat} has more than 8 bits a sample`);
    const found = await requireFfmpeg(executable);
    return new FfmpegDecoder(path, index, found.path, await passthroughOption(found.path));
  }

  async decode(indices: readonly number[], size: Size): Promise<DecodeResult> {
    const { pts } = this.#index;
    const result: DecodeResult = new Map();
    const inRange: number[] = [];
    for (const i of [...new Set(indices)].sort((a, b) => a - b)) {
      if (pts[i] !== undefined) inRange.push(i);
      else result.set(i, new FrameUnavailableError(this.#path, i, `the video has ${pts.length} frames`));
    }
    for (const run of splitRuns(inRange)) await this.#decodeRun(run, size, result);
    return result;
  }

  /** Tries from the key frame before the run, then from earlier ones, at last from the first byte. */
  async #decodeRun(run: readonly number[], size: Size, result: DecodeResult): Promise<void> {
    const { pts, keys } = this.#index;
    const key = lastAtMost(keys, pts[run[0]!]!);
    const starts = [key, key - 1].filter((k) => k >= 0).map((k) => keys[k]);
    let reason = 'its packets do not decode; the file may be damaged';
    for (const start of [...starts, undefined]) {
      try {
        const frames = await this.#select(run, start, size);
        if (frames.length < run.length && start !== undefined) continue;
        // From the first byte on, frames are missing at the end only: what comes, comes in order.
        if (frames.length === run.length) {
          for (const [k, i] of run.entries()) result.set(i, { index: i, ...size, data: frames[k]! });
          return;
        }
        if (run.length > 1) {
          for (const i of run) await this.#decodeRun([i], size, result);
          return;
        }
      } catch (error) {
        reason = messageOf(error);
      }
    }
    for (const i of run) result.set(i, new FrameUnavailableError(this.#path, i, reason));
  }

  async #select(run: readonly number[], start: number | undefined, size: Size): Promise<Uint8Array[]> {
    const { pts, timeBase, orientation, stream } = this.#index;
    const coded = swapsSides(orientation) ? { width: size.height, height: size.width } : size;
    const wanted = run.map((i) => `eq(pts,${pts[i]})`).join('+');
    // Timestamps stay the file's own (-copyts) and the seek ends at a key frame, untrimmed; the filter does the choosing.
    const seek =
      start === undefined
        ? []
        : ['-seek_timestamp 1', '-noaccurate_seek', `-ss ${((start * timeBase.num) / timeBase.den).toFixed(6)}`];
    const filters = [
      `select='${wanted}'`,
      `trim=end_pts=${pts[run.at(-1)!]! + 1}`,
      `scale=${coded.width}:${coded.height}:flags=bilinear`,
      'format=rgb24',
    ];
    const bytes = await collect(
      (await command(this.#executable))
        .input(`file:${resolve(this.#path)}`)
        .inputOptions(['-nostdin', '-threads 1', '-noautorotate', '-copyts', ...seek])
        .videoFilters(filters.map((filter) => filter))
        .outputOptions([
          `-map 0:${stream}`,
          `${this.#passthrough} passthrough`,
          `-frames:v ${run.length}`,
          '-f rawvideo',
        ]),
    );
    const step = coded.width * coded.height * 3;
    return Array.from({ length: Math.floor(bytes.length / step) }, (_, k) =>
      orient(new Uint8Array(bytes.subarray(k * step, (k + 1) * step)), coded, orientation),
    );
  }

  close(): void {
    // Each call runs its own process to the end: nothing is held.
  }
}

/** Cuts ascending indices where the gap is so wide that seeking pays. */
export function splitRuns(indices: readonly number[]): number[][] {
  const runs: number[][] = [];
  for (const i of indices) {
    const run = runs.at(-1);
    if (run && i - run.at(-1)! < RUN_GAP) run.push(i);
    else runs.push([i]);
  }
  return runs;
}
