/** @file What a row says of its video, and what the file says. */
import { InputError, type Sample } from '@frame-thinker/core';
import type { FrameSource, VideoFacts } from './frame-source.ts';
import { imageSize } from './image-size.ts';
import type { Size } from './regimes.ts';

/** How a row is named in messages. */
export function rowName(sample: Sample): string {
  const { index } = sample.extraInfo;
  return index === undefined || index === null ? `row ${sample.uid}` : `row ${index} (${sample.uid})`;
}

function numberOf(sample: Sample, name: string, value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0)
    throw new InputError(`${rowName(sample)}: ${name} is ${JSON.stringify(value)}, not a number >= 0`);
  return value;
}

/** Facts that the row gives. Absent: to be probed. */
export interface RowFacts {
  video: string;
  fps?: number;
  totalFrames?: number;
}

/** @throws InputError when the row's fps or total_frames is not a number. */
export function rowFacts(sample: Sample): RowFacts {
  const video = sample.videoPath ?? sample.extraInfo.video_path;
  const fps = numberOf(sample, 'fps', sample.fps ?? sample.extraInfo.fps);
  const totalFrames = numberOf(sample, 'total_frames', sample.totalFrames ?? sample.extraInfo.total_frames);
  return {
    video: typeof video === 'string' ? video : '',
    ...(fps !== undefined && { fps }),
    ...(totalFrames !== undefined && { totalFrames }),
  };
}

/** The size that frames are downscaled from: the row's first prompt image, else the row's, else the video's. */
export async function sourceSize(sample: Sample, probe: () => Promise<VideoFacts>): Promise<Size> {
  const first = sample.images?.[0];
  if (first) return imageSize(first);
  const width = numberOf(sample, 'width', sample.extraInfo.width);
  const height = numberOf(sample, 'height', sample.extraInfo.height);
  if (width && height) return { width, height };
  return probe();
}

/** Where the row and the file disagree, in words; the row's number is used. */
export function factMismatches(sample: Sample, row: RowFacts, file: VideoFacts): string[] {
  const warnings: string[] = [];
  if (row.totalFrames !== undefined && row.totalFrames !== file.totalFrames)
    warnings.push(`${rowName(sample)}: total_frames is ${row.totalFrames}, but ${row.video} has ${file.totalFrames}`);
  // Rates are often stored rounded (29.97 for 30000/1001).
  if (row.fps !== undefined && Math.abs(row.fps - file.fps) > 0.005 * file.fps)
    warnings.push(`${rowName(sample)}: fps is ${row.fps}, but that of ${row.video} is ${file.fps}`);
  return warnings;
}

/** A video's facts, asked for at most once. */
export function probeOnce(frames: FrameSource, video: string): () => Promise<VideoFacts> {
  let facts: Promise<VideoFacts> | undefined;
  return () => {
    facts ??= frames.probe(video);
    return facts;
  };
}
