/** @file Video: probe, exact frame access by index, shared frame stores, rendering of scenes. */
export { FrameUnavailableError, UnsupportedByDecoderError } from './errors.ts';
export { type FfmpegExecutable, findFfmpeg } from './ffmpeg-executable.ts';
export { createFrameStore } from './frame-store.ts';
export { indexCodeBoxes, readIndexCode } from './index-code.ts';
export { defaultCacheDir } from './packet-index.ts';
export { frameRef, openVideo, probeVideo } from './reader.ts';
export { renderScene } from './render.ts';
export type * from './types.ts';
