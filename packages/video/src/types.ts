/** @file The types that this package hands out. */

export interface Rational {
  num: number;
  den: number;
}

/** What a probe reports of the best video stream of a file. */
export interface VideoInfo {
  /** As given to the probe. */
  path: string;
  /** Size in pixels as displayed, after the display matrix's rotation. */
  width: number;
  height: number;
  /** Average rate in frames per second: the number and the exact rational behind it. */
  fps: number;
  fpsRational: Rational;
  /** Presentable frames of the packet index. */
  totalFrames: number;
  /** Seconds: totalFrames / fps. */
  duration: number;
  /** FFmpeg's codec name, such as `h264`. */
  codec: string;
  /** Degrees clockwise that the decoded picture is turned by for display: 0, 90, 180 or 270. */
  rotation: 0 | 90 | 180 | 270;
}

/** One decoded frame: `data` holds height x width x 3 uint8 RGB values, row-major. Treat it as read-only: stores share it. */
export interface RgbFrame {
  /** Position among the presentable frames, from 0. */
  index: number;
  width: number;
  height: number;
  data: Uint8Array;
}

export type DecoderName = 'node-av' | 'ffmpeg';

export interface OpenVideoOptions {
  /** Output size in pixels (both or neither); default: the display size. Scaled by swscale's BILINEAR. */
  width?: number;
  height?: number;
  /** Default `node-av` (in process). `ffmpeg` runs the executable, and refuses what it cannot read exactly. */
  decoder?: DecoderName;
  /** Folder of cached packet indexes; default `$XDG_CACHE_HOME/frame-thinker/video-index` or the system's equivalent. */
  cacheDir?: string;
  /** Path of the ffmpeg executable (decoder `ffmpeg`); default: see `findFfmpeg`. */
  ffmpegPath?: string;
}

export interface VideoReader {
  readonly info: VideoInfo;
  /**
   * The frames at `indices`, in the order given; duplicates allowed. Calls are served one after the other.
   * @throws FrameUnavailableError when an index is out of range or its frame cannot be decoded.
   */
  frames(indices: readonly number[]): Promise<RgbFrame[]>;
  /** Frees the decoder. Frames already returned stay valid. */
  close(): Promise<void>;
}

/** A filled rectangle shown on frames start..end, both included; later boxes cover earlier ones. Sizes in pixels. */
export interface SceneBox {
  x: number;
  y: number;
  w: number;
  h: number;
  color: readonly [number, number, number];
  start: number;
  end: number;
}

/** A square that jumps once a second: x = (phase + stride * floor(t)) mod (width - size). */
export interface SceneDistractor {
  size: number;
  y: number;
  stride: number;
  phase?: number;
  color?: readonly [number, number, number];
}

/** Everything that is drawn, in frames and pixels. The same scene gives the same bytes on the same machine and renderer. */
export interface Scene {
  /** Even sizes in pixels (4:2:0). */
  width: number;
  height: number;
  /** Frames per second: an integer or a rational. */
  fps: number | Rational;
  /** Number of frames. */
  frames: number;
  background: string | readonly [number, number, number];
  boxes: readonly SceneBox[];
  distractor?: SceneDistractor;
}

export interface RenderOptions {
  /** Default `node-av` (in process, needs no executable). */
  renderer?: DecoderName;
  /** x264 preset; default `ultrafast`. */
  preset?: 'ultrafast' | 'superfast' | 'veryfast' | 'medium';
  /** x264 constant rate factor; default 28. */
  crf?: number;
  /** Frames between key frames; default 48. */
  gop?: number;
  /** Consecutive B-frames; default 0. */
  bFrames?: number;
  ffmpegPath?: string;
  /** Called every few hundred frames. */
  onProgress?: (done: number, total: number) => void;
}

export interface RenderResult {
  bytes: number;
  ms: number;
}

export interface FrameStoreOptions {
  /** Open readers kept at most; default 4. */
  maxReaders?: number;
  /** Bytes of decoded frames kept at most; default 256 MiB. */
  maxBytes?: number;
  decoder?: DecoderName;
  cacheDir?: string;
  ffmpegPath?: string;
}

export interface FrameStoreStats {
  /** Frames asked for that were in the store, or were already being decoded for another call. */
  hits: number;
  misses: number;
  /** Frames thrown out to stay within maxBytes. */
  evictions: number;
  bytes: number;
  openReaders: number;
}

export interface FrameStore {
  /** Frames of `video` at a size (default: the display size). Safe to call concurrently. Errors as VideoReader.frames and openVideo. */
  get(video: string, indices: readonly number[], size?: { width: number; height: number }): Promise<RgbFrame[]>;
  stats(): FrameStoreStats;
  close(): Promise<void>;
}
