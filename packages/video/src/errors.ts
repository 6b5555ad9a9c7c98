/** @file What can go wrong with one frame: data for the environment, never a crash. */

/** A frame that cannot be had: its index is out of range, or its packets cannot be decoded. */
export class FrameUnavailableError extends Error {
  override name = 'FrameUnavailableError';
  readonly video: string;
  readonly index: number;

  constructor(video: string, index: number, reason: string) {
    super(`${video}: frame ${index} is not available: ${reason}`);
    this.video = video;
    this.index = index;
  }
}

/** The ffmpeg executable would not return exact frames of this file; the in-process decoder may. */
export class UnsupportedByDecoderError extends Error {
  override name = 'UnsupportedByDecoderError';
  readonly video: string;

  constructor(video: string, reason: string) {
    super(`${video}: the ffmpeg executable cannot read this exactly (${reason}); use the decoder node-av`);
    this.video = video;
  }
}
