/** @file Where the environment's frames come from. */
import type { FrameRef } from '@frame-thinker/core';
import { type FrameStore, frameRef, probeVideo } from '@frame-thinker/video';
import type { Size } from './regimes.ts';

/** What the environment needs of a video: size in pixels as displayed, frames per second, presentable frames. */
export interface VideoFacts extends Size {
  fps: number;
  totalFrames: number;
}

/** The video package's frame store in the product, a fake in tests. */
export interface FrameSource {
  probe(video: string): Promise<VideoFacts>;
  /** Frames in the order of `indices`, decoded at `size`; throws when one cannot be read. */
  get(video: string, indices: readonly number[], size: Size): Promise<FrameRef[]>;
}

/** The product's frame source. Facts are probed once per path; the pixels stay in the store, to be found again by reference. */
export function videoFrameSource(store: Pick<FrameStore, 'get'>, options: { cacheDir?: string } = {}): FrameSource {
  const facts = new Map<string, Promise<VideoFacts>>();
  return {
    probe(video) {
      const known = facts.get(video);
      if (known) return known;
      const probed = probeVideo(video, options);
      facts.set(video, probed);
      // A file that cannot be read now may be there later (videos are rendered in the background).
      probed.catch(() => facts.delete(video));
      return probed;
    },
    async get(video, indices, size) {
      return (await store.get(video, indices, size)).map((frame) => frameRef(frame, video));
    },
  };
}
