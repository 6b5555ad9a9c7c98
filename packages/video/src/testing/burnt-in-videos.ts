/** @file Small videos that carry each frame's number in its picture, in the containers and codecs that make frame access go wrong. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type EncodeOptions, encodeScene } from '../encoder.ts';
import { indexCodeBoxes } from '../index-code.ts';
import type { Scene } from '../types.ts';

export interface BurntInVideo {
  name: string;
  /** File name with extension. */
  file: string;
  frames: number;
  gop: number;
  options: Partial<EncodeOptions>;
  /** Number burnt into the first presentable frame. */
  first?: number;
  /** Turned by the display matrix: the picture that is shown has swapped sides. */
  rotated?: boolean;
  /** The executable must refuse it. */
  refusedByExecutable?: boolean;
}

// SVT-AV1 writes its settings to stderr unless its own variable says: errors only.
process.env.SVT_LOG ??= '1';

const SIDE = { width: 240, height: 120 };
const x264 = (extra: Record<string, string> = {}): Record<string, string> => ({
  preset: 'ultrafast',
  crf: '24',
  ...extra,
});
const B_FRAMES = { 'x264-params': 'bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0' };

/** Nine int32: a quarter turn clockwise. */
function quarterTurn(): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(36));
  for (const [at, value] of [
    [1, 65536],
    [3, -65536],
    [8, 2 ** 30],
  ] as const)
    bytes.setInt32(4 * at, value, true);
  return new Uint8Array(bytes.buffer);
}

/** Four seconds at the full rate alternate with four at a third of it. */
const variableTime = (frame: number): number => {
  const [block, within] = [Math.floor(frame / 128), frame % 128];
  return block * 192 + (within < 96 ? within : 96 + 3 * (within - 96));
};

export const H264_VIDEOS: readonly BurntInVideo[] = [
  { name: 'H.264 without B-frames', file: 'plain.mp4', frames: 220, gop: 48, options: { encoderOptions: x264() } },
  {
    name: 'H.264 with B-frames',
    file: 'b3.mp4',
    frames: 220,
    gop: 80,
    options: { encoderOptions: x264(B_FRAMES), bFrames: 3 },
  },
  {
    name: 'H.264 with open GOPs',
    file: 'opengop.mp4',
    frames: 220,
    gop: 48,
    options: {
      encoderOptions: x264({ 'x264-params': `${B_FRAMES['x264-params']}:open-gop=1` }),
      bFrames: 3,
    },
  },
  {
    name: 'H.264 of variable frame rate',
    file: 'vfr.mp4',
    frames: 220,
    gop: 80,
    options: { encoderOptions: x264(B_FRAMES), bFrames: 3, timeOf: variableTime },
  },
  {
    name: 'H.264 in Matroska',
    file: 'b3.mkv',
    frames: 220,
    gop: 80,
    options: { encoderOptions: x264(B_FRAMES), bFrames: 3, format: 'matroska' },
  },
  {
    name: 'H.264 behind an edit list',
    file: 'editlist.mp4',
    frames: 220,
    gop: 48,
    first: 36,
    options: { encoderOptions: x264(B_FRAMES), bFrames: 3, timeOf: (frame) => frame - 36 },
  },
  {
    name: 'H.264 in MPEG-TS',
    file: 'b3.ts',
    frames: 220,
    gop: 48,
    options: { encoderOptions: x264(B_FRAMES), bFrames: 3, format: 'mpegts' },
    refusedByExecutable: true,
  },
  {
    name: 'H.264 without time stamps (AVI)',
    file: 'b3.avi',
    frames: 120,
    gop: 48,
    options: { encoderOptions: x264(B_FRAMES), bFrames: 3, format: 'avi' },
    refusedByExecutable: true,
  },
  {
    name: 'H.264 turned by a display matrix',
    file: 'turned.mp4',
    frames: 100,
    gop: 48,
    rotated: true,
    options: { encoderOptions: x264(), displayMatrix: quarterTurn() },
  },
  {
    name: 'H.264 interlaced',
    file: 'interlaced.mp4',
    frames: 120,
    gop: 48,
    options: { encoderOptions: x264({ 'x264-params': 'tff=1' }) },
  },
  {
    // Its points of recovery are no places to start at.
    name: 'H.264 with periodic intra refresh',
    file: 'refresh.mp4',
    frames: 220,
    gop: 60,
    options: { encoderOptions: x264({ 'x264-params': 'intra-refresh=1:keyint=60:scenecut=0' }) },
  },
  { name: 'a single frame', file: 'single.mp4', frames: 1, gop: 48, options: { encoderOptions: x264() } },
];

export const OTHER_CODECS: readonly BurntInVideo[] = [
  {
    name: 'HEVC',
    file: 'hevc.mp4',
    frames: 400,
    gop: 80,
    options: {
      bFrames: 3,
      encoder: 'libx265',
      encoderOptions: { preset: 'ultrafast', crf: '26', 'x265-params': 'log-level=none:pools=none:frame-threads=1' },
    },
  },
  {
    name: 'HEVC without a container',
    file: 'raw.hevc',
    frames: 200,
    gop: 80,
    refusedByExecutable: true,
    options: {
      format: 'hevc',
      bFrames: 3,
      encoder: 'libx265',
      encoderOptions: {
        preset: 'ultrafast',
        crf: '26',
        'x265-params': 'log-level=none:pools=none:frame-threads=1:repeat-headers=1',
      },
    },
  },
  {
    name: 'VP9',
    file: 'vp9.webm',
    frames: 400,
    gop: 80,
    options: {
      encoder: 'libvpx-vp9',
      encoderOptions: { deadline: 'realtime', 'cpu-used': '8', b: '400k' },
      format: 'webm',
    },
  },
  {
    name: 'AV1',
    file: 'av1.webm',
    frames: 220,
    gop: 80,
    options: {
      encoder: 'libsvtav1',
      encoderOptions: { preset: '12', crf: '40', 'svtav1-params': 'lp=1' },
      format: 'webm',
    },
  },
];

/** Renders the video into the folder; its path. */
export async function renderBurntIn(folder: string, video: BurntInVideo): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, video.file);
  const scene: Scene = {
    ...SIDE,
    fps: 24,
    frames: video.frames,
    background: '#202428',
    boxes: indexCodeBoxes({ ...SIDE, frames: video.frames }),
    distractor: { size: 16, y: 90, stride: 37 },
  };
  await encodeScene(scene, path, {
    encoder: 'libx264',
    encoderOptions: {},
    format: 'mp4',
    gop: video.gop,
    bFrames: 0,
    ...video.options,
  });
  return path;
}

/** About thirty indices, in no order: the ends, both sides of key frames, and a stride through the rest. */
export function sampledIndices(total: number, gop: number): number[] {
  const edges = [0, 1, 2, gop - 1, gop, gop + 1, 2 * gop - 1, 2 * gop, total >> 1, total - 3, total - 2, total - 1];
  const spread = Array.from({ length: 18 }, (_, k) => (k * 7919 + 13) % total);
  return [...spread, ...edges].filter((i) => i >= 0 && i < total);
}

/** A copy that ends after `part` of the bytes. */
export function truncated(path: string, part: number, to: string): string {
  const bytes = readFileSync(path);
  writeFileSync(to, bytes.subarray(0, Math.floor(bytes.length * part)));
  return to;
}
