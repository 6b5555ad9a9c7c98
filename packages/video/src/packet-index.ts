/** @file The packet index: the time stamp of every presentable frame, in order, from one scan of the packets, cached on disk. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { cacheDirectory, InputError, writeFileAtomic } from '@frame-thinker/core';
import type { AVPixelFormat } from 'node-av/constants';
import type { Packet } from 'node-av/lib';
import { openDemuxer, statVideo } from './demuxer.ts';
import { startsWithIntraPicture } from './h264-keys.ts';
import { type Av, createBreather, loadAv, NO_TIMESTAMP } from './native.ts';
import { type Orientation, parseDisplayMatrix, UPRIGHT } from './orientation.ts';
import type { Rational } from './types.ts';

export interface PacketIndex {
  /** Size of the coded picture in pixels, before the display matrix. */
  width: number;
  height: number;
  orientation: Orientation;
  codec: string;
  /** FFmpeg's name of the pixel format, such as `yuv420p`. */
  pixelFormat: string;
  container: string;
  fps: Rational;
  timeBase: Rational;
  /**
   * Time stamps cannot identify frames (some are missing or occur twice): a frame is found by counting the decoder's output
   * from the first byte, and `pts` counts 0, 1, 2, …
   */
  sequential: boolean;
  /** Presentation time stamp of every presentable frame, ascending, in units of timeBase. */
  pts: Float64Array;
  /** Time stamps of the packets at which decoding can start, ascending. */
  keys: Float64Array;
  /** The stream's place in the file. */
  stream: number;
}

const VERSION = 2;

interface CacheFile {
  version: number;
  path: string;
  size: number;
  mtimeMs: number;
  index: Omit<PacketIndex, 'pts' | 'keys'> & { pts: number[]; keys: number[] };
  sha256: string;
}

/** Where packet indexes are kept. */
export const defaultCacheDir = (): string => cacheDirectory('video-index');

/**
 * The index of a file, from the cache when path, size and modification time are the same, else scanned and cached.
 * A damaged cache file is scanned again; a cache that cannot be written is done without.
 * @throws InputError when the file is missing, empty, unreadable, or has no video frames.
 */
export async function indexOf(path: string, cacheDir = defaultCacheDir()): Promise<PacketIndex> {
  const key = { path: resolve(path), ...statVideo(path) };
  const name = createHash('sha256').update(`${key.path}\0${key.size}\0${key.mtimeMs}`).digest('hex').slice(0, 32);
  const file = join(cacheDir, `${name}.json`);
  const cached = readCache(file, key);
  if (cached) return cached;
  const index = await scan(await loadAv(), path);
  const body: CacheFile['index'] = { ...index, pts: toRuns(index.pts), keys: toRuns(index.keys) };
  const entry: CacheFile = { version: VERSION, ...key, index: body, sha256: checksum(body) };
  try {
    writeFileAtomic(file, JSON.stringify(entry));
  } catch {
    // The cache only saves time: a read-only or full disk must not stop a run that can read its videos.
  }
  return index;
}

const checksum = (body: CacheFile['index']): string => createHash('sha256').update(JSON.stringify(body)).digest('hex');

function readCache(file: string, key: { path: string; size: number; mtimeMs: number }): PacketIndex | undefined {
  try {
    const entry = JSON.parse(readFileSync(file, 'utf8')) as CacheFile;
    const same = entry.path === key.path && entry.size === key.size && entry.mtimeMs === key.mtimeMs;
    if (entry.version !== VERSION || !same || entry.sha256 !== checksum(entry.index)) return undefined;
    return { ...entry.index, pts: fromRuns(entry.index.pts), keys: fromRuns(entry.index.keys) };
  } catch {
    return undefined;
  }
}

/** Differences as (difference, repetitions) pairs: a constant frame rate takes two pairs. */
export function toRuns(values: Float64Array): number[] {
  const runs: number[] = [];
  let previous = 0;
  for (const value of values) {
    const difference = value - previous;
    if (runs.length > 0 && runs[runs.length - 2] === difference) runs[runs.length - 1]!++;
    else runs.push(difference, 1);
    previous = value;
  }
  return runs;
}

export function fromRuns(runs: readonly number[]): Float64Array {
  const values: number[] = [];
  let value = 0;
  for (let i = 0; i < runs.length; i += 2)
    for (let repeat = 0; repeat < runs[i + 1]!; repeat++) {
      value += runs[i]!;
      values.push(value);
    }
  return Float64Array.from(values);
}

async function scan(av: Av, path: string): Promise<PacketIndex> {
  const { lib, constants } = av;
  const { format, stream, container } = openDemuxer(av, path);
  const packet = new lib.Packet();
  packet.alloc();
  try {
    const { codecpar, timeBase } = stream;
    const codec = lib.avGetCodecName(codecpar.codecId) ?? 'unknown';
    const isKey = ({ flags, data }: Packet): boolean =>
      (flags & constants.AV_PKT_FLAG_KEY) !== 0 &&
      (codec !== 'h264' || data === null || startsWithIntraPicture(data, codecpar.extradata));
    const shown: number[] = [];
    const keys: number[] = [];
    let untimed = false;
    const breathe = createBreather(10);
    while (format.readFrameSync(packet) >= 0) {
      if (packet.streamIndex === stream.index) {
        const { flags, pts } = packet;
        if (pts === NO_TIMESTAMP) untimed = true;
        if (isKey(packet)) keys.push(Number(pts));
        // Packets that an edit list hides are decoded for the sake of others, never shown.
        if (!(flags & constants.AV_PKT_FLAG_DISCARD)) shown.push(Number(pts));
      }
      packet.unref();
      await breathe();
    }
    if (shown.length === 0) throw new InputError(`${path}: has a video stream without any frame; is it complete?`);
    const pts = Float64Array.from(shown).sort();
    const sequential = untimed || pts.some((value, i) => i > 0 && value === pts[i - 1]);
    const matrix = codecpar.getCodedSideData(constants.AV_PKT_DATA_DISPLAYMATRIX);
    if (!(codecpar.width > 0 && codecpar.height > 0)) throw new InputError(`${path}: its picture size is unknown`);
    return {
      width: codecpar.width,
      height: codecpar.height,
      orientation: matrix ? parseDisplayMatrix(path, matrix) : UPRIGHT,
      codec,
      pixelFormat: lib.avGetPixFmtName(codecpar.format as AVPixelFormat) ?? 'unknown',
      container,
      fps: averageRate(path, [stream.avgFrameRate, stream.rFrameRate]),
      timeBase: { num: timeBase.num, den: timeBase.den },
      sequential,
      pts: sequential ? Float64Array.from(shown, (_, i) => i) : pts,
      keys: sequential ? new Float64Array(0) : Float64Array.from(keys).sort(),
      stream: stream.index,
    };
  } finally {
    packet.free();
    format.closeInputSync();
  }
}

/** The container's average rate, else its base rate. */
function averageRate(path: string, rates: Rational[]): Rational {
  const rate = rates.find(({ num, den }) => num > 0 && den > 0);
  if (!rate) throw new InputError(`${path}: its frame rate is unknown`);
  return { num: rate.num, den: rate.den };
}
