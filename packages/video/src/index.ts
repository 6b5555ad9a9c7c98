import type { FrameRef } from '@frame-thinker/core';
import type {
  FrameStore,
  FrameStoreOptions,
  OpenVideoOptions,
  RenderOptions,
  RenderResult,
  RgbFrame,
  Scene,
  VideoInfo,
  VideoReader,
} from './types.ts';

export { FrameUnavailableError, UnsupportedByDecoderError } from './errors.ts';
export type * from './types.ts';

const pending = (name: string): never => {
  throw new Error(`${name} is not there yet`);
};

export const probeVideo = async (_path: string, _options?: { cacheDir?: string }): Promise<VideoInfo> =>
  pending('probeVideo');
export const openVideo = async (_path: string, _options?: OpenVideoOptions): Promise<VideoReader> =>
  pending('openVideo');
export const createFrameStore = (_options?: FrameStoreOptions): FrameStore => pending('createFrameStore');
export const frameRef = (_frame: RgbFrame, _video: string): FrameRef => pending('frameRef');
export const findFfmpeg = (_explicit?: string): { path: string; source: string } | undefined => pending('findFfmpeg');
export const renderScene = async (_scene: Scene, _path: string, _options?: RenderOptions): Promise<RenderResult> =>
  pending('renderScene');
