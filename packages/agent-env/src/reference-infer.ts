/** @file The original evaluation program's rules, as pure functions (`--compat reference`). They differ from the environment's. */
import { PythonError, pythonInt, pythonRegExp, pythonStrip, taggedBlocks } from '@frame-thinker/core';
import { firstLook, fitSize, type Regime, type Size, zoomIndices } from './regimes.ts';

const FRAMES = pythonRegExp('choose frames between\\s+(\\d+)\\s+and\\s+(\\d+)');
const TIME = pythonRegExp('^get frame number at time\\s+(\\S+)');

/** First `<think>` and first `<action>`, both needed, in any order; stripped. */
export function parseModelResponse(response: string): { think: string; action: string } | undefined {
  const think = taggedBlocks(response, 'think')[0];
  const action = taggedBlocks(response, 'action')[0];
  if (!think || !action) return undefined;
  return { think: pythonStrip(think.content), action: pythonStrip(action.content) };
}

/** Indices that a choice shows; undefined ends the attempt: no choice, start >= end, end >= total, or end - start <= n. */
export function chooseFrames(action: string, { total, n }: { total: number; n: number }): number[] | undefined {
  const match = FRAMES.exec(action);
  if (!match) return undefined;
  const [start, end] = [Number(pythonInt(match[1]!)), Number(pythonInt(match[2]!))];
  if (start >= end || end >= total || end - start <= n) return undefined;
  return zoomIndices(start, end, n);
}

/** Reply to a time call; undefined ends the attempt. */
export function getFrameNumber(action: string, fps: number): string | undefined {
  const time = TIME.exec(action)?.[1];
  const parts = time?.split(':');
  if (parts?.length !== 2) return undefined;
  try {
    const seconds = 60n * pythonInt(parts[0]!) + pythonInt(parts[1]!);
    return `Frame number at time ${time} is: ${BigInt(Math.trunc(Number(seconds) * fps))}.`;
  } catch (error) {
    if (error instanceof PythonError || error instanceof RangeError) return undefined;
    throw error;
  }
}

export { firstLook as initialSampling };

/** Size of a frame; the original's resize fails on a side of 0. @throws RangeError then. */
export function resizedSize(size: Size, regime: Pick<Regime, 'maxWidth' | 'maxHeight'>): Size {
  const fitted = fitSize(size, regime);
  if (fitted.width < 1 || fitted.height < 1)
    throw new RangeError(
      `${size.width}x${size.height} shrinks to ${fitted.width}x${fitted.height}: a side of 0 pixels`,
    );
  return fitted;
}
