/** @file The original evaluation program's rules, as pure functions (`--compat reference`). They differ from the environment's. */
import { PythonError, pythonInt, pythonRegExp, pythonStrip, taggedBlocks } from '@frame-thinker/core';
import { firstLook, fitSize, type Regime, type Size, zoomIndices } from './regimes.ts';

const FRAMES = pythonRegExp('choose frames between\\s+(\\d+)\\s+and\\s+(\\d+)');
const TIME = pythonRegExp('get frame number at time\\s+(\\S+)');
// The check of a finished attempt matches at the start, the calls themselves anywhere.
const VALID_TIME = pythonRegExp('^get frame number at time\\s+(\\S+)');
const VALID_FRAMES = pythonRegExp('^choose frames between (\\d+) and (\\d+)');
const REPLY = pythonRegExp('is:\\s*(\\d+)');
const ANSWER = pythonRegExp('^output answer:\\s*(\\S+)');

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
  const [start, end] = [match[1]!, match[2]!].map((digits) =>
    // More digits than Python's int() takes: past any end.
    digits.length > 4000 ? Number.POSITIVE_INFINITY : Number(pythonInt(digits)),
  ) as [number, number];
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

export { compactFrames } from './observations.ts';
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

/** The texts after each action, up to the next think or the end. */
function replies(text: string): string[] {
  const found: string[] = [];
  const open = '</action>';
  for (let at = text.indexOf(open); at >= 0; ) {
    const start = at + open.length;
    const think = text.indexOf('<think>', start);
    found.push(text.slice(start, think < 0 ? text.length : think));
    at = think < 0 ? -1 : text.indexOf(open, think);
  }
  return found;
}

/** `toolCalls` counts choices and time calls, `choices` the former. Both are 0 when the process is not valid. */
export interface ProcessVerdict {
  valid: boolean;
  toolCalls: number;
  choices: number;
}

/**
 * The check of a finished attempt, on its whole text: as many thinks as actions, an answer at the end; no range or time
 * twice, ranges of more than n frames, and after a time call at once a choice that contains its frame. What a think says,
 * the whole video and shrunk ranges are not looked at.
 */
export function validateReasoningProcess(text: string, n: number): ProcessVerdict {
  const invalid: ProcessVerdict = { valid: false, toolCalls: 0, choices: 0 };
  const actions = taggedBlocks(text, 'action').map((block) => pythonStrip(block.content));
  if (actions.length === 0 || taggedBlocks(text, 'think').length !== actions.length) return invalid;
  if (!ANSWER.test(actions.at(-1)!)) return invalid;
  const after = replies(text);
  const seen = new Set<string>();
  let [toolCalls, choices] = [0, 0];
  let due: bigint | undefined;
  try {
    for (const [i, action] of actions.slice(0, -1).entries()) {
      const frames = VALID_FRAMES.exec(action);
      if (due !== undefined && !frames) return invalid;
      const time = VALID_TIME.exec(action)?.[1];
      if (frames) {
        const [start, end] = [pythonInt(frames[1]!), pythonInt(frames[2]!)];
        const key = `${start} ${end}`;
        if (seen.has(key) || end - start <= BigInt(n)) return invalid;
        if (due !== undefined && !(start <= due && due <= end)) return invalid;
        seen.add(key);
        due = undefined;
        choices++;
      } else if (time !== undefined) {
        const number = REPLY.exec(after[i] ?? '')?.[1];
        if (seen.has(`at ${time}`) || number === undefined) return invalid;
        seen.add(`at ${time}`);
        due = pythonInt(number);
      } else {
        return invalid;
      }
      toolCalls++;
    }
  } catch (error) {
    if (error instanceof PythonError) return invalid;
    throw error;
  }
  return due === undefined ? { valid: true, toolCalls, choices } : invalid;
}
