/**
 * @file Scripted demonstrations of the synthetic task, whole and in parts, good habits and bad ones.
 * The bad ones are what reinforcement learning has to unlearn: answering at once, or after a look somewhere.
 */
import type { Rng } from '@frame-thinker/core';
import { clock, questionText, type SynthQuestion } from './synth-questions.ts';
import type { SceneEvent } from './synth-scene.ts';
import { SYNTH_FPS } from './synth-scene.ts';
import { LETTERS } from './synth-words.ts';
import { type SequenceEncoder, type TokenSequence, TokenSequenceBuilder } from './token-sequence.ts';

/** Loss weights by what a token says; everything else the policy writes has weight 1. */
export interface DemonstrationWeights {
  letter: number;
  verdict: number;
  seen: number;
  option: number;
  /** Times and frame numbers. */
  number: number;
}

export interface DemonstrationOptions extends SequenceEncoder {
  /** Frames a look, as the environment gives them. */
  frames: number;
  weights: DemonstrationWeights;
}

/** Positions that one frame takes in a look: `frame 4811: `, vision markers, the side of its grid, newline. */
const POSITIONS_PER_FRAME = 15;
/** The width of the look that the demonstrations ask for. */
const LOOK = 100;

const OPEN_USER = '<|im_start|>user\n';
const NEXT_USER = `\n${OPEN_USER}`;
const OPEN_ASSISTANT = '<|im_end|>\n<|im_start|>assistant\n';

/** Same as the environment's: trunc(linspace(first, last, n)), each index once. */
function spread(first: number, last: number, n: number): number[] {
  return [
    ...new Set(Array.from({ length: n }, (_, i) => Math.trunc(first + ((last - first) * i) / Math.max(1, n - 1)))),
  ];
}

function eventAt(question: SynthQuestion, frame: number): SceneEvent | undefined {
  return question.video.events.find(({ start, end }) => start <= frame && frame <= end);
}

/** The hundred frames around a frame number. */
export function lookAround(frame: number): [number, number] {
  const start = Math.floor(frame / LOOK) * LOOK;
  return [start, start + LOOK - 1];
}

/** Frames that the environment returns for a choice (b clamped to the video's end). */
function lookFrames(question: SynthQuestion, [a, b]: readonly [number, number], n: number): number[] {
  return spread(a + 1, Math.min(b, question.video.scene.frames) - 1, n);
}

class Demonstration {
  readonly #sequence: TokenSequenceBuilder;
  readonly #question: SynthQuestion;
  readonly #options: DemonstrationOptions;

  constructor(question: SynthQuestion, options: DemonstrationOptions) {
    this.#sequence = new TokenSequenceBuilder(options);
    this.#question = question;
    this.#options = options;
  }

  /** `frame {i}: <image>` lines. */
  #show(frames: readonly number[]): void {
    frames.forEach((index, i) => {
      this.#sequence.add(`${i > 0 ? '\n' : ''}frame ${index}: `).frame(index);
    });
  }

  /** Skips the positions that the frames left out would have taken: heads then learn to match by content, not by distance. */
  #skip(rng: Rng, shown: number, looks = 1): void {
    const missing = this.#options.frames * looks - shown;
    if (missing > 0) this.#sequence.jump(rng.below(missing * POSITIONS_PER_FRAME + 1));
  }

  prompt(frames: readonly number[], jump?: { rng: Rng; looks?: number }): this {
    this.#sequence.add(`${OPEN_USER}${questionText(this.#question)}\n\n`);
    this.#show(frames);
    if (jump) this.#skip(jump.rng, frames.length, jump.looks);
    this.#sequence.add(OPEN_ASSISTANT);
    return this;
  }

  askTime(): this {
    const { number } = this.#options.weights;
    const at = ` ${clock(this.#question.seconds)}`;
    this.#sequence
      .add('<think> i need the frame number at', 1)
      .add(at, number)
      .add('</think><action> get frame number at time', 1)
      .add(at, number)
      .add('</action><|im_end|>', 1);
    return this;
  }

  timeReply(): this {
    const { seconds } = this.#question;
    this.#sequence.add(
      `${NEXT_USER}Frame number at time ${clock(seconds)} is: ${seconds * SYNTH_FPS}.${OPEN_ASSISTANT}`,
    );
    return this;
  }

  look([a, b]: readonly [number, number]): this {
    const { number } = this.#options.weights;
    for (const before of ['<think> look between', '</think><action> choose frames between'])
      this.#sequence.add(before, 1).add(` ${a}`, number).add(' and', 1).add(` ${b}`, number);
    this.#sequence.add('</action><|im_end|>', 1);
    return this;
  }

  lookReply(frames: readonly number[], jump?: Rng): this {
    this.#sequence.add(NEXT_USER);
    this.#show(frames);
    if (jump) this.#skip(jump, frames.length);
    this.#sequence.add(OPEN_ASSISTANT);
    return this;
  }

  see({ colour, shape }: SceneEvent, learnt: boolean): this {
    const { seen } = this.#options.weights;
    const weight = (w: number) => (learnt ? w : 0);
    this.#sequence.add('<think> i see a', weight(1)).add(` ${colour} ${shape}`, weight(seen)).add('.', weight(1));
    return this;
  }

  guess(word: string): this {
    this.#sequence.add(`<think> guess ${word}.`, 1);
    return this;
  }

  /** Goes through the options ("yes" = the option's word was just said) and answers the last yes, else A. */
  answer(said: readonly string[]): this {
    const { letter, verdict, option } = this.#options.weights;
    let chosen = 'A';
    this.#question.options.forEach((word, i) => {
      const yes = said.includes(word);
      if (yes) chosen = LETTERS[i]!;
      this.#sequence
        .add(`\n${LETTERS[i]}:`, 1)
        .add(` ${word}`, option)
        .add(yes ? ' yes' : ' no', verdict)
        .add('.', 1);
    });
    this.#sequence.add('</think><action> output answer:', 1).add(` ${chosen}`, letter).add('</action><|im_end|>', 1);
    return this;
  }

  build(): TokenSequence {
    return this.#sequence.build();
  }
}

/** What kinds of demonstrations there are; `whole3` shows 3 frames a look. */
export type DemonstrationKind = 'see' | 'list' | 'copy' | 'whole3' | 'whole' | 'mix';

/** One frame among the look's that shows the event, and n − 1 others, in order. */
function someFrames(question: SynthQuestion, n: number, rng: Rng, of: number): number[] {
  const all = lookFrames(question, lookAround(question.seconds * SYNTH_FPS), of);
  if (n >= all.length) return all;
  const showing = rng.pick(all.filter((frame) => eventAt(question, frame) === question.event));
  const others = rng.shuffled(all.filter((frame) => frame !== showing)).slice(0, n - 1);
  return [showing, ...others].sort((a, b) => a - b);
}

function whole(question: SynthQuestion, rng: Rng, options: DemonstrationOptions, n: number): TokenSequence {
  const { event, seconds, video } = question;
  const fewer = n < options.frames;
  return new Demonstration(question, options)
    .prompt(spread(0, video.scene.frames - 1, n), fewer ? { rng } : undefined)
    .askTime()
    .timeReply()
    .look(lookAround(seconds * SYNTH_FPS))
    .lookReply(someFrames(question, n, rng, options.frames), fewer ? rng : undefined)
    .see(event, true)
    .answer([event.colour, event.shape])
    .build();
}

/** Habits of the base policy: how often it does the whole procedure, guesses at once, or looks somewhere first. */
export interface HabitShares {
  whole: number;
  guess: number;
  wander: number;
}

/** Places where the wandering habit looks: hundreds of frames of the video, the same few for one video, so that their frames stay cached. */
const WANDER_PLACES = 12;

function habit(question: SynthQuestion, rng: Rng, options: DemonstrationOptions, shares: HabitShares): TokenSequence {
  const { video } = question;
  const draw = rng.uniform() * (shares.whole + shares.guess + shares.wander);
  if (draw < shares.whole) return whole(question, rng, options, options.frames);
  const demonstration = new Demonstration(question, options).prompt(spread(0, video.scene.frames - 1, options.frames));
  let seen: SceneEvent | undefined;
  if (draw >= shares.whole + shares.guess) {
    const hundreds = Math.floor(video.scene.frames / LOOK);
    const range = lookAround(LOOK * Math.floor(((1 + rng.below(WANDER_PLACES)) * hundreds) / (WANDER_PLACES + 2)));
    const frames = lookFrames(question, range, options.frames);
    demonstration.look(range).lookReply(frames);
    seen = frames.map((frame) => eventAt(question, frame)).find((event) => event !== undefined);
  }
  if (seen && question.options.includes(question.kind === 'colour' ? seen.colour : seen.shape))
    return demonstration.see(seen, true).answer([seen.colour, seen.shape]).build();
  const word = rng.pick(question.options);
  return demonstration.guess(word).answer([word]).build();
}

/** A demonstration of the kind asked for. */
export function demonstrate(
  kind: DemonstrationKind,
  question: SynthQuestion,
  rng: Rng,
  options: DemonstrationOptions,
  shares: HabitShares = { whole: 0.35, guess: 0.4, wander: 0.25 },
): TokenSequence {
  const { event, seconds } = question;
  switch (kind) {
    case 'see': // One look with one frame; only what it shows is learnt.
      return new Demonstration(question, options)
        .lookReply(someFrames(question, 1, rng, options.frames))
        .see(event, true)
        .build();
    case 'list': // Text only: what was seen is given, the walk through the options and the letter are learnt.
      return new Demonstration(question, options)
        .prompt([], { rng, looks: 2 })
        .see(event, false)
        .answer([event.colour, event.shape])
        .build();
    case 'copy': // Text only: the time call and the look.
      return new Demonstration(question, options)
        .prompt([], { rng })
        .askTime()
        .timeReply()
        .look(lookAround(seconds * SYNTH_FPS))
        .build();
    case 'whole3':
      return whole(question, rng, options, 3);
    case 'whole':
      return whole(question, rng, options, options.frames);
    case 'mix':
      return habit(question, rng, options, shares);
  }
}
