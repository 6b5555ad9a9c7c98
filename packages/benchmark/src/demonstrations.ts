/**
 * @file Scripted demonstrations of the synthetic task, whole and in parts, good habits and bad ones.
 * The bad ones are what reinforcement learning has to unlearn: answering at once, or after a look somewhere.
 */
import type { Rng } from '@frame-thinker/core';
import { Demonstration, type DemonstrationOptions } from './demonstration.ts';
import {
  type FrameRange,
  lookAround,
  type MomentQuestion,
  type PlaceQuestion,
  type SynthQuestion,
} from './synth-questions.ts';
import { type SceneEvent, SYNTH_FPS, type SynthVideo } from './synth-scene.ts';
import { LETTERS } from './synth-words.ts';
import type { TokenSequence } from './token-sequence.ts';

/** What kinds of demonstrations there are; `whole3` shows 3 frames a look, `guess` none, `wander` looks somewhere. */
export type DemonstrationKind = 'see' | 'list' | 'copy' | 'whole3' | 'whole' | 'guess' | 'wander';

/** Places where the wandering habit looks: hundreds of frames of the video, the same few for one video, so that their frames stay cached. */
const WANDER_PLACES = 12;
/** Times and frame numbers that copying is taught with go as far as the longest videos. */
const COPIED_SECONDS = 600;

/** Same as the environment's: trunc(linspace(first, last, n)), each index once. */
function spread(first: number, last: number, n: number): number[] {
  return [
    ...new Set(Array.from({ length: n }, (_, i) => Math.trunc(first + ((last - first) * i) / Math.max(1, n - 1)))),
  ];
}

function eventAt(video: SynthVideo, frame: number): SceneEvent | undefined {
  return video.events.find(({ start, end }) => start <= frame && frame <= end);
}

/** Frames that the environment returns for a choice (b clamped to the video's end). */
function lookFrames(video: SynthVideo, [a, b]: FrameRange, n: number): number[] {
  return spread(a + 1, Math.min(b, video.scene.frames) - 1, n);
}

/** Of a look at `range`, one frame that shows the event and n − 1 others, in order. */
function someFrames(
  { video, range, event }: { video: SynthVideo; range: FrameRange; event: SceneEvent },
  n: number,
  rng: Rng,
  of: number,
): number[] {
  const all = lookFrames(video, range, of);
  if (n >= all.length) return all;
  const showing = rng.pick(all.filter((frame) => eventAt(video, frame) === event));
  const others = rng.shuffled(all.filter((frame) => frame !== showing)).slice(0, n - 1);
  return [showing, ...others].sort((a, b) => a - b);
}

/** The look that answers a question. */
function answeringLook(question: SynthQuestion): FrameRange {
  if (question.kind !== 'place') return lookAround(question.seconds * SYNTH_FPS);
  return question.parts[LETTERS.indexOf(question.answer)]!.range;
}

/** The prompt with `n` of the frames that the environment shows first. */
function opened(question: SynthQuestion, rng: Rng, options: DemonstrationOptions, n: number): Demonstration {
  const { video } = question;
  return new Demonstration(question, options).prompt(
    n === 0 ? [] : spread(0, video.scene.frames - 1, n),
    n < options.frames ? { rng } : undefined,
  );
}

/** Time, then the look around it. */
function wholeMoment(question: MomentQuestion, rng: Rng, options: DemonstrationOptions, n: number): TokenSequence {
  const { event, seconds, video } = question;
  const range = answeringLook(question);
  return opened(question, rng, options, n)
    .askTime(seconds)
    .timeReply(seconds, seconds * SYNTH_FPS)
    .think()
    .look(range)
    .lookReply(someFrames({ video, range, event }, n, rng, options.frames), n < options.frames ? rng : undefined)
    .see(event, true)
    .answerBy([event.colour, event.shape])
    .build();
}

/** One part after the other until the thing is seen; the last is known when the others were not it. With n = 0 what was seen is given. */
function wholePlace(question: PlaceQuestion, rng: Rng, options: DemonstrationOptions, n: number): TokenSequence {
  const { parts, video, answer } = question;
  const opening = n > 0 ? 1 : 0;
  const demonstration = opened(question, rng, options, n).think(opening);
  for (const [i, part] of parts.entries()) {
    const letter = LETTERS[i]!;
    if (i === LETTERS.length - 1) demonstration.verdict(letter, true);
    else {
      const shown = n === 0 ? [] : someFrames({ video, ...part }, n, rng, options.frames);
      demonstration
        .look(part.range, { part: letter, first: i === 0 ? opening : 1 })
        .lookReply(shown, n < options.frames ? rng : undefined)
        .see(part.event, n > 0)
        .compare(letter, part.event);
    }
    if (letter === answer) break;
  }
  return demonstration.answer(answer).build();
}

function whole(question: SynthQuestion, rng: Rng, options: DemonstrationOptions, n: number): TokenSequence {
  return question.kind === 'place' ? wholePlace(question, rng, options, n) : wholeMoment(question, rng, options, n);
}

/** Text only: the time call and the look, with times and frame numbers that have nothing to do with one another. */
function copying(question: MomentQuestion, rng: Rng, options: DemonstrationOptions): TokenSequence {
  const frame = rng.below(COPIED_SECONDS * SYNTH_FPS);
  return opened(question, rng, options, 0)
    .askTime(question.seconds, 0)
    .timeReply(question.seconds, frame)
    .think()
    .look(lookAround(frame))
    .build();
}

/** Answers at once. */
function guessing(question: SynthQuestion, rng: Rng, options: DemonstrationOptions): TokenSequence {
  const demonstration = opened(question, rng, options, options.frames);
  const word = rng.pick(question.kind === 'place' ? LETTERS : question.options);
  demonstration.guess(word);
  return (question.kind === 'place' ? demonstration.answer(word) : demonstration.answerBy([word])).build();
}

/** Looks at a part at random; if it is not the one, takes another. */
function wanderingPlace(question: PlaceQuestion, rng: Rng, options: DemonstrationOptions): TokenSequence {
  const { video, parts, answer } = question;
  const letter = rng.pick(LETTERS);
  const { range, event } = parts[LETTERS.indexOf(letter)]!;
  const found = letter === answer;
  return opened(question, rng, options, options.frames)
    .think()
    .look(range, { part: letter, random: true })
    .lookReply(lookFrames(video, range, options.frames))
    .see(event, true)
    .compare(letter, event)
    .answer(found ? letter : rng.pick(LETTERS.filter((other) => other !== letter)))
    .build();
}

/** Looks at a hundred at random; if that shows nothing that is among the options, guesses. */
function wanderingMoment(question: MomentQuestion, rng: Rng, options: DemonstrationOptions): TokenSequence {
  const { video } = question;
  const hundreds = Math.floor(video.scene.frames / 100);
  const range = lookAround(100 * Math.floor(((1 + rng.below(WANDER_PLACES)) * hundreds) / (WANDER_PLACES + 2)));
  const frames = lookFrames(video, range, options.frames);
  const seen = frames.map((frame) => eventAt(video, frame)).find((event) => event !== undefined);
  const demonstration = opened(question, rng, options, options.frames)
    .think()
    .look(range, { random: true })
    .lookReply(frames);
  if (seen && question.options.includes(seen[question.kind]))
    return demonstration.see(seen, true).answerBy([seen.colour, seen.shape]).build();
  const word = rng.pick(question.options);
  return demonstration.guess(word).answerBy([word]).build();
}

/** A demonstration of the kind asked for. */
export function demonstrate(
  kind: DemonstrationKind,
  question: SynthQuestion,
  rng: Rng,
  options: DemonstrationOptions,
): TokenSequence {
  const { event, video } = question;
  switch (kind) {
    case 'see': // One look with one frame; only what it shows is learnt.
      return new Demonstration(question, options)
        .lookReply(someFrames({ video, range: answeringLook(question), event }, 1, rng, options.frames))
        .see(event, true)
        .build();
    case 'list': // Text only: what was seen is given, the walk through the options and the letter are learnt.
      if (question.kind === 'place') return wholePlace(question, rng, options, 0);
      return new Demonstration(question, options)
        .prompt([], { rng, looks: 2 })
        .see(event, false)
        .answerBy([event.colour, event.shape])
        .build();
    case 'copy':
      return question.kind === 'place' ? wholePlace(question, rng, options, 0) : copying(question, rng, options);
    case 'whole3':
      return whole(question, rng, options, 3);
    case 'whole':
      return whole(question, rng, options, options.frames);
    case 'guess':
      return guessing(question, rng, options);
    case 'wander':
      return question.kind === 'place'
        ? wanderingPlace(question, rng, options)
        : wanderingMoment(question, rng, options);
  }
}
