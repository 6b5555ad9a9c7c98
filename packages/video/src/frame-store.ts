/** @file Decoded frames shared by many readers: an LRU of open decoders and an LRU of frames, safe for concurrent calls. */
import { FrameUnavailableError } from './errors.ts';
import type { FrameDecoder, Size } from './exact-decoder.ts';
import { checkSize, openDecoder } from './reader.ts';
import type { FrameStore, FrameStoreOptions, RgbFrame, VideoInfo } from './types.ts';

interface OpenVideo {
  info: VideoInfo;
  decoder: FrameDecoder;
  /** Decodes of one video are served one after the other. */
  queue: Promise<unknown>;
}

interface Entry {
  opening: Promise<OpenVideo>;
  /** Calls that hold the decoder; only an idle one may be closed. */
  users: number;
}

type Outcome = RgbFrame | FrameUnavailableError;

/** A store of decoded frames. Close it when done: it holds open files. */
export function createFrameStore(options: FrameStoreOptions = {}): FrameStore {
  const { maxReaders = 4, maxBytes = 256 * 2 ** 20, ...opening } = options;
  // Both maps are in order of last use.
  const videos = new Map<string, Entry>();
  const frames = new Map<string, RgbFrame>();
  const inFlight = new Map<string, Promise<Outcome>>();
  const counts = { hits: 0, misses: 0, evictions: 0, bytes: 0 };

  async function withVideo<T>(path: string, use: (video: OpenVideo) => Promise<T>): Promise<T> {
    const entry = videos.get(path) ?? { opening: openEntry(path), users: 0 };
    videos.delete(path);
    videos.set(path, entry);
    entry.users++;
    try {
      return await use(await entry.opening);
    } catch (error) {
      // A file that does not open today may be there tomorrow.
      await entry.opening.catch(() => videos.get(path) === entry && videos.delete(path));
      throw error;
    } finally {
      entry.users--;
      await closeIdle(maxReaders);
    }
  }

  async function openEntry(path: string): Promise<OpenVideo> {
    return { ...(await openDecoder(path, opening)), queue: Promise.resolve() };
  }

  async function closeIdle(keep: number): Promise<void> {
    for (const [path, entry] of videos) {
      if (videos.size <= keep) return;
      if (entry.users > 0) continue;
      videos.delete(path);
      (await entry.opening).decoder.close();
    }
  }

  function remember(key: string, frame: RgbFrame): void {
    frames.set(key, frame);
    counts.bytes += frame.data.byteLength;
    for (const [oldest, { data }] of frames) {
      if (counts.bytes <= maxBytes) break;
      frames.delete(oldest);
      counts.bytes -= data.byteLength;
      counts.evictions++;
    }
  }

  /** The frame from the store or from a decode under way; undefined when it must be decoded. */
  function lookUp(key: string): Outcome | Promise<Outcome> | undefined {
    const frame = frames.get(key);
    if (!frame) return inFlight.get(key);
    frames.delete(key);
    frames.set(key, frame);
    return frame;
  }

  function decodeMissing(video: OpenVideo, indices: readonly number[], size: Size, keyOf: (i: number) => string): void {
    if (indices.length === 0) return;
    const decoding = video.queue.then(() => video.decoder.decode(indices, size));
    video.queue = decoding.catch(() => undefined);
    for (const i of indices) {
      const key = keyOf(i);
      const outcome = decoding
        .then((decoded) => {
          const frame = decoded.get(i)!;
          if (!(frame instanceof FrameUnavailableError)) remember(key, frame);
          return frame;
        })
        .finally(() => inFlight.delete(key));
      // Whoever asked awaits it; a failure must not count as unhandled while they await another frame.
      outcome.catch(() => undefined);
      inFlight.set(key, outcome);
    }
  }

  return {
    get(path, indices, size) {
      return withVideo(path, async (video) => {
        const target = size ?? { width: video.info.width, height: video.info.height };
        checkSize(path, target);
        const keyOf = (i: number): string => `${target.width}x${target.height}:${i}:${path}`;
        const missing = [...new Set(indices)].filter((i) => lookUp(keyOf(i)) === undefined);
        const known = new Map([...new Set(indices)].map((i) => [i, lookUp(keyOf(i))]));
        counts.misses += missing.length;
        counts.hits += known.size - missing.length;
        decodeMissing(video, missing, target, keyOf);
        for (const i of missing) known.set(i, inFlight.get(keyOf(i)));
        const outcomes = new Map<number, Outcome>();
        for (const [i, outcome] of known) outcomes.set(i, (await outcome)!);
        return indices.map((i) => {
          const outcome = outcomes.get(i)!;
          if (outcome instanceof FrameUnavailableError) throw outcome;
          return outcome;
        });
      });
    },
    stats: () => ({ ...counts, openReaders: videos.size }),
    async close() {
      await Promise.allSettled(inFlight.values());
      await closeIdle(0);
      frames.clear();
      counts.bytes = 0;
    },
  };
}
