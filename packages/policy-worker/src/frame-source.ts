/** @file The frames that looks show: the video's own, or for ablations others of the same number and size. */
import type { FrameSource } from '@frame-thinker/agent-env';
import { InputError } from '@frame-thinker/core';
import type { ReplacedFrames } from '@frame-thinker/worker-pool';
import type { FrameLibrary } from './frame-library.ts';

/** Facts are always the own video's: a replaced look differs in its pixels alone. */
export function frameSource(library: FrameLibrary, replaced: ReplacedFrames | undefined): FrameSource {
  if (!replaced) return library;
  const probe: FrameSource['probe'] = (video) => library.probe(video);
  if (replaced.kind === 'grey')
    return {
      probe,
      get: async (video, indices, { width, height }) => {
        const data = new Uint8Array(3 * width * height).fill(replaced.level);
        const grey = await library.reference({ kind: 'rgb', width, height, data });
        return indices.map((index) => ({ ...grey, video, index }));
      },
    };
  const { videos } = replaced;
  return {
    probe,
    get: async (video, indices, size) => {
      const at = videos.indexOf(video);
      const other = videos[(at + 1) % videos.length];
      if (at < 0 || other === undefined || other === video)
        throw new InputError(`${video}: there is no other video to take frames from`);
      const { totalFrames } = await library.probe(other);
      return library.get(
        other,
        indices.map((index) => Math.min(index, totalFrames - 1)),
        size,
      );
    },
  };
}
