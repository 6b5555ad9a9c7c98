/** @file The action grammar: what one assistant turn asks the environment to do. */
import { type Action, messageOf, pythonInt, pythonRegExp, pythonStrip, taggedBlocks } from '@frame-thinker/core';

/** `strict`: the whole block is one of the three actions. `reference`: exactly the original, quirks included. */
export type Grammar = 'strict' | 'reference';

export type ParsedAction =
  /** `seconds` of a time action, exact: the reference takes integers of any size. */
  | { kind: 'action'; action: Action; exactSeconds?: bigint }
  | { kind: 'no_action'; message: string }
  | { kind: 'bad_action'; message: string };

const REFERENCE_TIME = pythonRegExp('^get frame number at time\\s+(\\S+)');
const REFERENCE_FRAMES = pythonRegExp('choose frames between (\\d+) and (\\d+)');
const ANSWER = /^output answer:(.*)$/s;
const STRICT_TIME = /^get frame number at time (([0-9]+):([0-5][0-9]))$/;
const STRICT_FRAMES = /^choose frames between ([0-9]+) and ([0-9]+)$/;

/** Frame numbers beyond this cannot be kept exactly, nor exist in any video: they are recorded as this. */
const frameNumber = (digits: bigint): number =>
  digits > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(digits);

const shown = (block: string): string => JSON.stringify(block.length > 80 ? `${block.slice(0, 80)}…` : block);

function timeAction(time: string, exactSeconds: bigint): ParsedAction {
  return { kind: 'action', action: { kind: 'time', time, seconds: Number(exactSeconds) }, exactSeconds };
}

function parseStrict(block: string): ParsedAction {
  const time = STRICT_TIME.exec(block);
  if (time) return timeAction(time[1]!, 60n * BigInt(time[2]!) + BigInt(time[3]!));
  const frames = STRICT_FRAMES.exec(block);
  if (frames)
    return {
      kind: 'action',
      action: { kind: 'frames', start: frameNumber(BigInt(frames[1]!)), end: frameNumber(BigInt(frames[2]!)) },
    };
  const answer = ANSWER.exec(block);
  if (answer && pythonStrip(answer[1]!))
    return { kind: 'action', action: { kind: 'answer', answer: pythonStrip(answer[1]!) } };
  return {
    kind: 'bad_action',
    message: `${shown(block)} is none of "choose frames between A and B", "get frame number at time M:SS", "output answer: X"`,
  };
}

function parseReference(block: string): ParsedAction {
  const time = REFERENCE_TIME.exec(block)?.[1];
  if (time !== undefined) {
    const parts = time.split(':');
    try {
      if (parts.length === 2) return timeAction(time, 60n * pythonInt(parts[0]!) + pythonInt(parts[1]!));
    } catch {
      // Falls through: not two Python ints.
    }
    return { kind: 'bad_action', message: `${shown(time)} is not a time of the form M:S` };
  }
  const frames = REFERENCE_FRAMES.exec(block);
  if (frames) {
    try {
      const [start, end] = [frameNumber(pythonInt(frames[1]!)), frameNumber(pythonInt(frames[2]!))];
      return { kind: 'action', action: { kind: 'frames', start, end } };
    } catch (error) {
      return { kind: 'bad_action', message: `${shown(block)}: ${messageOf(error)}` };
    }
  }
  const answer = ANSWER.exec(block);
  // The original never looks for an answer: here too it only ends the episode, but the record says what it was.
  if (answer) return { kind: 'action', action: { kind: 'answer', answer: pythonStrip(answer[1]!) } };
  return { kind: 'bad_action', message: `${shown(block)} holds no action` };
}

/** The action that the environment executes for one assistant turn: that of its last complete block. Pure. */
export function parseAction(text: string, grammar: Grammar): ParsedAction {
  const last = taggedBlocks(text, 'action').at(-1);
  if (!last) return { kind: 'no_action', message: 'the turn has no complete <action>…</action> block' };
  const block = pythonStrip(last.content);
  return grammar === 'strict' ? parseStrict(block) : parseReference(block);
}
