/**
 * @file `ccv`: Cognitive Consistency Verification on the structured record. What the environment did and said is taken from
 * its record alone; of the model's text only each turn's think and the place of its action are read.
 */
import {
  type Action,
  pythonInt,
  type Reward,
  type Sample,
  type Trajectory,
  type Turn,
  taggedBlocks,
  verdict,
} from '@frame-thinker/core';
import type { Bonuses } from './ccv-v11.ts';
import { clockTimes, isSame, isShrunk, lastTwoIntegers, type Range } from './text-rules.ts';

export interface CcvOptions extends Bonuses {
  /** Frames a look shows in this sample's regime: a range must hold more. */
  frames: number;
}

/** What `ccv` reads of a trajectory and of a sample. */
export type CcvTrajectory = {
  turns: readonly Pick<Turn, 'role' | 'text' | 'action' | 'frameNumber' | 'frameIndices' | 'error'>[];
  end: Trajectory['end'];
};
export type CcvSample = Pick<Sample, 'groundTruth' | 'totalFrames' | 'extraInfo'> & Partial<Pick<Sample, 'prompt'>>;

type Rule = Reward['rules'][number];
type AssistantTurn = CcvTrajectory['turns'][number];
type Choice = Action & { kind: 'frames' };
type TimeCall = Action & { kind: 'time' };

/**
 * The think of a turn: its only one, before its only action. Any further tag, or another order, breaks the rule, so that
 * nothing written around them can stand in for either.
 */
function thinkOf(text: string): { think: string } | { broken: string } {
  const count = (tag: string): number => text.split(tag).length - 1;
  const counts = ['<think>', '</think>', '<action>', '</action>'].map(count);
  const [think] = taggedBlocks(text, 'think');
  const [action] = taggedBlocks(text, 'action');
  if (counts.some((n) => n !== 1) || !think || !action || think.end > action.start)
    return {
      broken: `a turn is one <think>…</think>, then one <action>…</action>; this one has ${counts[0]}+${counts[1]} think tags and ${counts[2]}+${counts[3]} action tags`,
    };
  return { think: think.content };
}

/** Checks the turns one after the other and keeps what later ones are checked against. */
class Verification {
  readonly rules: Rule[] = [];
  choices = 0;
  /** Seconds that were asked for, with the frame the environment named. */
  readonly times = new Map<number, number>();
  readonly #ranges: Range[] = [];
  readonly #total: number | undefined;
  readonly #frames: number;
  /** The frame that the call just before this turn named. */
  #due: number | undefined;

  constructor(total: number | undefined, frames: number) {
    this.#total = total;
    this.#frames = frames;
  }

  fail(name: string, turn: number, message: string): void {
    this.rules.push({ name, turn, message });
  }

  turn({ text, action, frameNumber, frameIndices, error }: AssistantTurn, index: number): void {
    const found = thinkOf(text);
    if ('broken' in found) this.fail('think_action_count', index, found.broken);
    const due = this.#due;
    this.#due = undefined;
    if (action?.kind === 'frames')
      this.#choice(action, index, { due, think: 'think' in found ? found.think : undefined, shown: frameIndices });
    else if (action?.kind === 'time') this.#time(action, index, frameNumber);
    else if (action?.kind === 'answer') {
      if (due !== undefined)
        this.fail('time_unused', index, `the answer follows a time call directly; frame ${due} was not looked at`);
    } else this.fail('not_executed', index, error ?? 'the environment executed no action');
  }

  #choice(
    action: Choice,
    turn: number,
    { due, think, shown }: { due: number | undefined; think: string | undefined; shown: number[] | undefined },
  ): void {
    const { start, end } = action;
    const asked = `${start} to ${end}`;
    if (!shown?.length) {
      this.fail('not_executed', turn, `the environment showed no frame of ${asked}`);
      return;
    }
    this.choices++;
    const total = this.#total;
    // What was looked at: the environment cuts a range at the end of the video.
    const effective = total === undefined ? end : Math.min(end, total);
    const range: Range = [BigInt(start), BigInt(effective)];
    if (due !== undefined && !(start <= due && due <= end))
      this.fail('time_not_in_range', turn, `${asked} does not contain frame ${due}, which was asked for`);
    if (total !== undefined && start === 0 && effective === total - 1)
      this.fail('initial_range', turn, `${asked} is the whole video, already seen`);
    if (this.#ranges.some((other) => isSame(range, other)))
      this.fail('repeated_range', turn, `${asked} was looked at before`);
    if (this.#ranges.some((other) => isShrunk(range, other)))
      this.fail('shrunk_range', turn, `${asked} is an earlier range less its end frames`);
    if (start >= effective - this.#frames)
      this.fail('range_too_short', turn, `${asked} is ${this.#frames} frames or fewer`);
    if (think !== undefined && !endsWithRange(think, [BigInt(start), BigInt(end)]))
      this.fail('think_range_mismatch', turn, `the think does not end with the range ${start}, ${end}`);
    this.#ranges.push(range);
  }

  #time(action: TimeCall, turn: number, frameNumber: number | undefined): void {
    if (frameNumber === undefined || frameNumber < 0) {
      this.fail('time_without_reply', turn, `the environment named no frame for ${action.time}`);
      return;
    }
    if (this.times.has(action.seconds)) this.fail('repeated_time', turn, `${action.time} was asked for before`);
    this.times.set(action.seconds, frameNumber);
    this.#due = frameNumber;
  }
}

function endsWithRange(think: string, range: Range): boolean {
  const numbers = lastTwoIntegers(think);
  // Longer numbers than any video's: no match, and Python's int() would refuse the longest.
  if (!numbers || numbers.some((digits) => digits.length > 4000)) return false;
  return isSame(range, [pythonInt(numbers[0]), pythonInt(numbers[1])]);
}

function questionOf({ extraInfo, prompt }: CcvSample): string {
  if (typeof extraInfo.question === 'string') return extraInfo.question;
  return prompt?.findLast((message) => message.role === 'user')?.content ?? '';
}

function totalFramesOf({ totalFrames, extraInfo }: CcvSample): number | undefined {
  const total = totalFrames ?? extraInfo.total_frames;
  return typeof total === 'number' ? total : undefined;
}

/**
 * Reward of a trajectory. Every broken rule is reported with its turn (index among the assistant turns).
 * Valid process: format 1. Right answer too: acc 1, and the bonuses. Wrong answer or broken process: total 0.
 */
export function ccv(
  trajectory: CcvTrajectory,
  sample: CcvSample,
  { frames, timeBonus = 0.5, choiceBonus = 0.02 }: CcvOptions,
): Reward {
  const turns = trajectory.turns.filter((turn) => turn.role === 'assistant');
  const total = totalFramesOf(sample);
  const verification = new Verification(total, frames);
  for (const [index, turn] of turns.entries()) verification.turn(turn, index);
  const last = Math.max(0, turns.length - 1);
  const early = turns.findIndex((turn, index) => index < last && turn.action?.kind === 'answer');
  if (early >= 0) verification.fail('answer_not_last', early, 'the episode went on after this answer');
  const final = turns.at(-1)?.action;
  if (final?.kind !== 'answer')
    verification.fail('no_answer', last, `the episode ended without an answer: ${trajectory.end}`);

  // Counted, since neither the whole video nor a range cut at its end can be told then.
  const extras: Record<string, number> =
    total === undefined && verification.choices > 0 ? { total_frames_unknown: 1 } : {};
  const reward: Reward = { total: 0, acc: 0, format: 0, other: 0, rules: verification.rules, extras };
  if (verification.rules.length > 0 || final?.kind !== 'answer') return reward;
  if (!verdict(final.answer, sample.groundTruth)) {
    const message = `the answer is ${JSON.stringify(final.answer)}, the truth ${JSON.stringify(sample.groundTruth)}`;
    return { ...reward, format: 1, rules: [{ name: 'wrong_answer', turn: last, message }] };
  }
  const asked = clockTimes(questionOf(sample));
  const rightTime = [...verification.times].some(([seconds, frame]) => frame > 0 && asked.has(seconds));
  const other = (rightTime ? timeBonus : 0) + (verification.choices > 0 ? choiceBonus : 0);
  return { ...reward, total: 1 + other, acc: 1, format: 1, other };
}
