/** @file Opening a file's best video stream. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { InputError } from '@frame-thinker/core';
import type { FormatContext, Stream } from 'node-av/lib';
import { type Av, describe } from './native.ts';

export interface Demuxer {
  format: FormatContext;
  stream: Stream;
  /** FFmpeg's name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`. */
  container: string;
}

/**
 * Size and modification time of a video file.
 * @throws InputError when there is none, or it is a folder, or empty.
 */
export function statVideo(path: string): { size: number; mtimeMs: number } {
  let stat: ReturnType<typeof statSync>;
  try {
    stat = statSync(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new InputError(`${path}: ${code === 'ENOENT' ? 'no such video file' : `cannot be read (${code})`}`);
  }
  if (!stat.isFile()) throw new InputError(`${path}: is not a file`);
  if (stat.size === 0) throw new InputError(`${path}: is empty (0 bytes), not a video`);
  return { size: stat.size, mtimeMs: stat.mtimeMs };
}

/** @throws InputError when the file is no readable video or has no video stream. */
export function openDemuxer(av: Av, path: string): Demuxer {
  const { lib, constants } = av;
  const format = new lib.FormatContext();
  // The protocol is spelled out: a file name may contain a colon.
  const opened = format.openInputSync(`file:${resolve(path)}`);
  if (opened < 0) {
    format.freeContext();
    throw new InputError(`${path}: not a readable video (${describe(av, opened)}); is it complete?`);
  }
  const found = format.findStreamInfoSync();
  const at = found < 0 ? -1 : format.findBestStream(constants.AVMEDIA_TYPE_VIDEO);
  const stream = at < 0 ? undefined : format.streams[at];
  // A cover picture of a sound file is a video stream to FFmpeg.
  if (!stream || stream.disposition & constants.AV_DISPOSITION_ATTACHED_PIC) {
    format.closeInputSync();
    throw new InputError(`${path}: has no video stream`);
  }
  for (const other of format.streams) if (other.index !== stream.index) other.discard = constants.AVDISCARD_ALL;
  return { format, stream, container: format.iformat?.name ?? '' };
}
