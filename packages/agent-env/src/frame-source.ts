/** @file Where the environment's frames come from. */
import type { FrameRef } from '@frame-thinker/core';
import type { Size } from './regimes.ts';

/** What the environment needs of a video: size in pixels as displayed, frames per second, presentable frames. */
export interface VideoFacts extends Size {
  fps: number;
  totalFrames: number;
}

/** A worker's frame library in the product, a fake in tests. */
export interface FrameSource {
  probe(video: string): Promise<VideoFacts>;
  /** Frames in the order of `indices`, decoded at `size`; throws when one cannot be read. */
  get(video: string, indices: readonly number[], size: Size): Promise<FrameRef[]>;
}
