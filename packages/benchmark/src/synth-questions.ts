/** @file Questions about the scenes, whose answers uniform frames rarely show. */
import { createRng, type Rng, type Sample } from '@frame-thinker/core';
import { type SceneEvent, SPLITS, type Split, SYNTH_FPS, SYNTH_SIZE, type SynthVideo } from './synth-scene.ts';
import { COLOUR_NAMES, LETTERS, type Letter, SHAPES } from './synth-words.ts';

/** What is asked: the colour or the shape shown at a moment, or in which of four parts of the video a thing is shown. */
export const QUESTION_KINDS = ['colour', 'shape', 'place'] as const;
export type QuestionKind = (typeof QUESTION_KINDS)[number];

interface QuestionCore {
  video: SynthVideo;
  event: SceneEvent;
  options: string[];
  answer: Letter;
}

export interface MomentQuestion extends QuestionCore {
  kind: 'colour' | 'shape';
  /** The moment asked about, in whole seconds; its frame lies at least MARGIN frames inside the event. */
  seconds: number;
}

export interface PlaceQuestion extends QuestionCore {
  kind: 'place';
  /** Of each option: its frames, and the event that a look at them shows. */
  parts: { range: FrameRange; event: SceneEvent }[];
}

export type SynthQuestion = MomentQuestion | PlaceQuestion;

/** First and last frame, both included. */
export type FrameRange = readonly [number, number];

/** Frames between the asked moment and either end of the event: more than the step of a look at a hundred frames (97 / 7). */
const MARGIN = 15;
/** Frames of the looks that the demonstrations ask for, and of the parts that questions name. */
const LOOK = 100;

/** M:SS, minutes unpadded. */
export function clock(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** The hundred frames around a frame number. */
export function lookAround(frame: number): FrameRange {
  const start = Math.floor(frame / LOOK) * LOOK;
  return [start, start + LOOK - 1];
}

/** The hundred around an event's middle: a look at it shows the event, and no other, since events lie more than a hundred apart. */
export function partOf({ start, end }: SceneEvent): FrameRange {
  return lookAround(Math.floor((start + end) / 2));
}

function momentQuestion(video: SynthVideo, event: SceneEvent, kind: 'colour' | 'shape', rng: Rng): MomentQuestion {
  const first = Math.ceil((event.start + MARGIN) / SYNTH_FPS);
  const last = Math.floor((event.end - MARGIN) / SYNTH_FPS);
  const seconds = first + rng.below(last - first + 1);
  const truth: string = kind === 'colour' ? event.colour : event.shape;
  const pool: readonly string[] = kind === 'colour' ? COLOUR_NAMES : SHAPES;
  const wrong = rng.shuffled(pool.filter((word) => word !== truth)).slice(0, 3);
  const options = rng.shuffled([truth, ...wrong]);
  return { kind, video, event, seconds, options, answer: LETTERS[options.indexOf(truth)]! };
}

/** The parts that are not the answer show other things. */
function placeQuestion(video: SynthVideo, event: SceneEvent, rng: Rng): PlaceQuestion {
  const others = video.events.filter(({ colour, shape }) => colour !== event.colour || shape !== event.shape);
  const shown = rng.shuffled([event, ...rng.shuffled(others).slice(0, 3)]);
  const parts = shown.map((each) => ({ range: partOf(each), event: each }));
  const options = parts.map(({ range: [first, last] }) => `${first} to ${last}`);
  return { kind: 'place', video, event, parts, options, answer: LETTERS[shown.indexOf(event)]! };
}

/** A random question of these kinds about one of the video's events. */
export function makeQuestion(video: SynthVideo, rng: Rng, kinds: readonly QuestionKind[]): SynthQuestion {
  const event = rng.pick(video.events);
  const kind = rng.pick(kinds);
  return kind === 'place' ? placeQuestion(video, event, rng) : momentQuestion(video, event, kind, rng);
}

/** `count` different questions about one video: as (event, kind) repeats only when all were asked, uniform over them. */
export function questionsOf(
  video: SynthVideo,
  {
    seed,
    split,
    index,
    count,
    kinds,
  }: { seed: number; split: Split; index: number; count: number; kinds: readonly QuestionKind[] },
): SynthQuestion[] {
  const rng = createRng(seed, 'synth', SPLITS.indexOf(split), index, 1);
  const seen = new Set<string>();
  const questions: SynthQuestion[] = [];
  while (questions.length < count) {
    const question = makeQuestion(video, rng, kinds);
    const key = `${question.kind} ${question.event.start}`;
    if (seen.has(key) && seen.size < kinds.length * video.events.length) continue;
    seen.add(key);
    questions.push(question);
  }
  return questions;
}

/** The text that the model reads before the frames. */
export function questionText(question: SynthQuestion): string {
  const { kind, event, options } = question;
  const asked =
    kind === 'place'
      ? `Where is a ${event.colour} ${event.shape} shown?`
      : `What ${kind} is shown at ${clock(question.seconds)}?`;
  return [asked, ...options.map((option, i) => `${LETTERS[i]}: ${option}`)].join('\n');
}

/** A row in verl's form; the video path is relative to the data file. */
export function questionRow(question: SynthQuestion, row: { split: Split; index: number }): Record<string, unknown> {
  const text = questionText(question);
  return {
    data_source: 'synth',
    env_name: 'think_with_video',
    prompt: [{ role: 'user', content: text }],
    reward_model: { style: 'rule', ground_truth: question.answer },
    extra_info: {
      index: row.index,
      split: row.split,
      question: text,
      kind: question.kind,
      video_path: `videos/${question.video.name}`,
      fps: SYNTH_FPS,
      total_frames: question.video.scene.frames,
      ...SYNTH_SIZE,
    },
  };
}

/** Question kinds of rows that have one, for reports. */
export function kindOf(sample: Sample): string {
  return typeof sample.extraInfo.kind === 'string' ? sample.extraInfo.kind : sample.dataSource;
}
