/** @file Sampling regimes: how many frames a look shows, at what size, and which. */

/** Frames a look shows, and the largest size of one, in pixels. */
export interface Regime {
  frames: number;
  maxWidth: number;
  maxHeight: number;
}

/** Videos of at most `limitSeconds` (or of unknown length) take `short`, longer ones `long`. */
export interface RegimeOptions {
  limitSeconds: number;
  short: Regime;
  long: Regime;
}

export interface Size {
  width: number;
  height: number;
}

/** The reference's: 8 frames of at most 640x360 up to 300 s, else 12 of at most 448x252. */
export const REFERENCE_REGIMES: RegimeOptions = {
  limitSeconds: 300,
  short: { frames: 8, maxWidth: 640, maxHeight: 360 },
  long: { frames: 12, maxWidth: 448, maxHeight: 252 },
};

/** The regime of a video of `durationSeconds` = total_frames / fps. */
export function chooseRegime({
  durationSeconds,
  regimes = REFERENCE_REGIMES,
}: {
  durationSeconds?: number | undefined;
  regimes?: RegimeOptions;
}): Regime {
  return durationSeconds !== undefined && durationSeconds > regimes.limitSeconds ? regimes.long : regimes.short;
}

/** Seconds of a video, from what is known; unknown without a frame count or with a rate of 0. */
export function durationOf(facts: { fps?: number | undefined; totalFrames?: number | undefined }): number | undefined {
  return facts.fps && facts.totalFrames !== undefined ? facts.totalFrames / facts.fps : undefined;
}

/** Downscale only, aspect kept: scale = min(maxW / w, maxH / h), each side truncated. A side may become 0. */
export function fitSize(
  { width, height }: Size,
  { maxWidth, maxHeight }: Pick<Regime, 'maxWidth' | 'maxHeight'>,
): Size {
  // The order of the float operations is the original's: 640x360 into 448x252 gives 448x251.
  const scale = Math.min(maxWidth / width, maxHeight / height);
  if (scale >= 1) return { width, height };
  return { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
}

/** trunc(linspace(start, stop, n)), as numpy computes it: start + i * step, the last exactly `stop`. */
function truncatedLinspace(start: number, stop: number, n: number): number[] {
  if (n === 1) return [Math.trunc(start)];
  const step = (stop - start) / (n - 1);
  return Array.from({ length: n }, (_, i) => Math.trunc(i === n - 1 ? stop : i * step + start));
}

/** Indices of the first look: n over the whole video; repeats when it has fewer than n frames. */
export function firstLook(total: number, n: number): number[] {
  return truncatedLinspace(0, total - 1, n);
}

/** Indices of a closer look strictly between the frames a and b: sorted and unique. */
export function zoomIndices(a: number, b: number, n: number): number[] {
  return [...new Set(truncatedLinspace(a + 1, b - 1, n))].sort((x, y) => x - y);
}
