/** @file Rate and length of the rows' videos: what a row does not say is read off its file. */
import { existsSync } from 'node:fs';
import { factMismatches, rowFacts, type VideoFacts } from '@frame-thinker/agent-env';
import { messageOf, type Sample } from '@frame-thinker/core';
import { probeVideo } from '@frame-thinker/video';
import type { DataRow } from './samples.ts';

/** Probes running at once. */
const PROBES = 4;

/** What is known of videos, each probed once. */
export class VideoFactsBook {
  readonly #probe: (path: string) => Promise<VideoFacts>;
  readonly #known = new Map<string, Promise<VideoFacts>>();
  readonly #compared = new Set<string>();

  constructor(probe: (path: string) => Promise<VideoFacts> = probeVideo) {
    this.#probe = probe;
  }

  /** @throws what the probe says of a file that cannot be read. */
  of(path: string): Promise<VideoFacts> {
    const known = this.#known.get(path) ?? this.#probe(path);
    this.#known.set(path, known);
    return known;
  }

  /**
   * Gives rows that lack fps or total_frames those of their video, in `extraInfo` too, where rewards read them.
   * @returns the rows that were completed, and those whose video cannot be read, which the run will find again
   */
  async complete(rows: readonly DataRow[]): Promise<{ completed: number; unreadable: string[] }> {
    const open = rows.filter(
      ({ sample: { videoPath, fps, totalFrames } }) =>
        videoPath !== undefined && (fps === undefined || totalFrames === undefined),
    );
    const unreadable: string[] = [];
    let next = 0;
    const work = async (): Promise<void> => {
      for (let row = open[next++]; row; row = open[next++]) {
        const { sample, where } = row;
        try {
          const file = await this.of(sample.videoPath!);
          sample.fps ??= file.fps;
          sample.totalFrames ??= file.totalFrames;
          sample.extraInfo = { ...sample.extraInfo, fps: sample.fps, total_frames: sample.totalFrames };
        } catch (error) {
          unreadable.push(`${where}: ${messageOf(error)}`);
        }
      }
    };
    await Promise.all(Array.from({ length: PROBES }, work));
    return { completed: open.length - unreadable.length, unreadable };
  }

  /** Where rows and files disagree, said once a video; the rows' figures are used. Files that cannot be read are left to the rollout. */
  async compare(samples: readonly Sample[]): Promise<string[]> {
    const found = samples.map(async (sample): Promise<string[]> => {
      const { videoPath: path } = sample;
      if (path === undefined || this.#compared.has(path) || !existsSync(path)) return [];
      this.#compared.add(path);
      const file = await this.of(path).catch(() => undefined);
      return file ? factMismatches(sample, rowFacts(sample), file) : [];
    });
    return (await Promise.all(found)).flat();
  }
}
