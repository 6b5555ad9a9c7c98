/**
 * @file `ccv-v11`: the original reward, on the decoded response text. Its quirks are kept: it sees one text in which the
 * model's words and the environment's can't be told apart, it matches prefixes, and it stops at the first broken rule.
 */
import {
  delimited,
  PythonError,
  pythonInt,
  pythonRegExp,
  pythonStrip,
  type Reward,
  taggedBlocks,
} from '@frame-thinker/core';
import { isSame, isShrunk, lastTwoIntegers, type Range } from './text-rules.ts';

/** Bonuses of a valid, right answer. */
export interface Bonuses {
  /** A time call gave a frame > 0, and the question is about a time. Default 0.5. */
  timeBonus?: number;
  /** Any choice of frames was made. Default 0.02. */
  choiceBonus?: number;
}

export interface CcvV11Input extends Bonuses {
  /** The decoded response: all turns and observations, special tokens and expanded image pads kept. */
  solutionStr: string;
  groundTruth: unknown;
  /** The row's extra_info: `question` and `total_frames` are read. */
  extraInfo: unknown;
}

const FRAMES = pythonRegExp('^choose frames between (\\d+) and (\\d+)');
const TIME = pythonRegExp('^get frame number at time\\s+(\\d{1,3}:\\d{2})');
const ANSWER = pythonRegExp('^output answer:\\s*(\\S+)');
const REPLY = pythonRegExp('is:\\s*(\\d+)');
const CLOCK = pythonRegExp('\\d+:\\d+');

/** The original tests a range's length against 8 frames, whatever the regime. */
const SHORTEST = 8n;

/** The rule that stopped the original, with the index of its action. */
class BrokenRule extends Error {
  readonly rule: string;
  readonly turn: number;
  constructor(rule: string, turn: number, message: string) {
    super(message);
    this.rule = rule;
    this.turn = turn;
  }
}

/** Python's `extra_info[key]`. @throws PythonError TypeError or KeyError as Python does. */
function item(extraInfo: unknown, key: string): unknown {
  if (typeof extraInfo !== 'object' || extraInfo === null || Array.isArray(extraInfo))
    throw new PythonError('TypeError', `extra_info is ${JSON.stringify(extraInfo)}, not a mapping`);
  if (!Object.hasOwn(extraInfo, key)) throw new PythonError('KeyError', `extra_info has no '${key}'`);
  return (extraInfo as Record<string, unknown>)[key];
}

/** Index of the video's last frame. @throws PythonError TypeError when total_frames is no number. */
function lastFrame(extraInfo: unknown): number {
  const total = item(extraInfo, 'total_frames');
  if (typeof total !== 'number')
    throw new PythonError('TypeError', `extra_info.total_frames is ${JSON.stringify(total)}, not a number`);
  return total - 1;
}

interface Process {
  answer: string;
  choices: Range[];
  /** Whether a time call gave a frame after the first. */
  foundFrame: boolean;
}

/** Checks one choice against the earlier ones, its own think, and the frame that a time call just gave. */
function checkChoice(
  range: Range,
  turn: number,
  context: { think: string; earlier: Range[]; last: number; due: bigint | undefined },
) {
  const [a, b] = range;
  const { think, earlier, last, due } = context;
  if (due !== undefined && !(a <= due && due <= b))
    throw new BrokenRule('time_not_in_range', turn, `${a} to ${b} does not contain frame ${due}, which was asked for`);
  // A range of any size against a frame count that may be a fraction: `==` compares bigint and number by value.
  // biome-ignore lint/suspicious/noDoubleEquals: see above
  if (a === 0n && b == (last as unknown as bigint))
    throw new BrokenRule('initial_range', turn, `${a} to ${b} is the whole video, already seen`);
  if (earlier.some((other) => isSame(range, other)))
    throw new BrokenRule('repeated_range', turn, `${a} to ${b} was chosen before`);
  if (earlier.some((other) => isShrunk(range, other)))
    throw new BrokenRule('shrunk_range', turn, `${a} to ${b} is an earlier range less its end frames`);
  if (a >= b - SHORTEST) throw new BrokenRule('range_too_short', turn, `${a} to ${b} is ${SHORTEST} frames or fewer`);
  const numbers = lastTwoIntegers(think);
  if (!numbers || !isSame(range, [pythonInt(numbers[0]), pythonInt(numbers[1])]))
    throw new BrokenRule('think_range_mismatch', turn, `the think does not end with the range ${a}, ${b}`);
}

/** The rules in the original's order. @throws BrokenRule at the first broken one; PythonError where the original raises. */
function verify(text: string, extraInfo: unknown): Process {
  const thinks = taggedBlocks(text, 'think').map((block) => pythonStrip(block.content));
  const actions = taggedBlocks(text, 'action').map((block) => pythonStrip(block.content));
  const replies = delimited(text, '</action>', '<think>').map((reply) => reply.content);
  if (thinks.length !== actions.length || actions.length === 0)
    throw new BrokenRule('think_action_count', 0, `${thinks.length} think blocks and ${actions.length} action blocks`);
  const end = actions.length - 1;
  const answer = ANSWER.exec(actions[end]!)?.[1];
  if (answer === undefined) throw new BrokenRule('no_answer', end, 'the last action is no answer');
  const last = lastFrame(extraInfo);

  const choices: Range[] = [];
  const times = new Set<string>();
  let due: bigint | undefined;
  let foundFrame = false;
  for (let turn = 0; turn < end; turn++) {
    const action = actions[turn]!;
    const frames = FRAMES.exec(action);
    const time = TIME.exec(action)?.[1];
    if (frames) {
      const range: Range = [pythonInt(frames[1]!), pythonInt(frames[2]!)];
      checkChoice(range, turn, { think: thinks[turn]!, earlier: choices, last, due });
      choices.push(range);
      due = undefined;
    } else if (time !== undefined) {
      if (times.has(time)) throw new BrokenRule('repeated_time', turn, `${time} was asked for before`);
      times.add(time);
      const reply = replies[turn];
      if (reply === undefined)
        throw new PythonError('IndexError', `no text between </action> and <think> for action ${turn}`);
      const number = REPLY.exec(reply)?.[1];
      if (number === undefined) throw new BrokenRule('time_without_reply', turn, `no "is: N" follows the call`);
      due = pythonInt(number);
      if (due > 0n) foundFrame = true;
    } else {
      throw new BrokenRule(
        'unknown_action',
        turn,
        `${JSON.stringify(action.slice(0, 80))} is neither a choice nor a time call`,
      );
    }
  }
  if (due !== undefined) throw new BrokenRule('time_unused', end, 'the answer follows a time call directly');
  return { answer, choices, foundFrame };
}

/**
 * The original reward. Where the original raises an exception: score 0, and the rule `raised:<exception>` names the reason.
 * Wrong answers score 0 with format 1 when the process is valid.
 */
export function ccvV11({
  solutionStr,
  groundTruth,
  extraInfo,
  timeBonus = 0.5,
  choiceBonus = 0.02,
}: CcvV11Input): Reward {
  const reward: Reward = { total: 0, acc: 0, format: 0, other: 0, rules: [], extras: {} };
  try {
    const question = item(extraInfo, 'question');
    const { answer, choices, foundFrame } = verify(solutionStr, extraInfo);
    if (answer !== groundTruth) {
      const message = `the answer is ${JSON.stringify(answer)}, the truth ${JSON.stringify(groundTruth)}`;
      return {
        ...reward,
        format: 1,
        rules: [{ name: 'wrong_answer', turn: taggedBlocks(solutionStr, 'action').length - 1, message }],
      };
    }
    let other = 0;
    if (foundFrame) {
      if (typeof question !== 'string') throw new PythonError('TypeError', 'extra_info.question is not a string');
      if (CLOCK.test(question)) other += timeBonus;
    }
    if (choices.length > 0) other += choiceBonus;
    return { ...reward, total: 1 + other, acc: 1, format: 1, other };
  } catch (error) {
    if (error instanceof BrokenRule)
      return { ...reward, rules: [{ name: error.rule, turn: error.turn, message: error.message }] };
    if (error instanceof PythonError)
      return { ...reward, rules: [{ name: `raised:${error.exception}`, turn: 0, message: error.message }] };
    throw error;
  }
}
