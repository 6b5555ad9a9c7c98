/** @file Questions about the scenes, whose answers uniform frames rarely show. */
import { createRng, type Rng, type Sample } from '@frame-thinker/core';
import { type SceneEvent, SPLITS, type Split, SYNTH_FPS, SYNTH_SIZE, type SynthVideo } from './synth-scene.ts';
import { COLOUR_NAMES, LETTERS, type Letter, SHAPES } from './synth-words.ts';

export const QUESTION_KINDS = ['colour', 'shape'] as const;
export type QuestionKind = (typeof QUESTION_KINDS)[number];

export interface SynthQuestion {
  kind: QuestionKind;
  video: SynthVideo;
  event: SceneEvent;
  /** The moment asked about, in whole seconds; its frame lies at least MARGIN frames inside the event. */
  seconds: number;
  options: string[];
  answer: Letter;
}

/** Frames between the asked moment and either end of the event: more than the step of a look at a hundred frames (97 / 7). */
const MARGIN = 15;

/** M:SS, minutes unpadded. */
export function clock(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** A random question about one of the video's events. */
export function makeQuestion(video: SynthVideo, rng: Rng): SynthQuestion {
  const event = rng.pick(video.events);
  const kind = rng.pick(QUESTION_KINDS);
  const first = Math.ceil((event.start + MARGIN) / SYNTH_FPS);
  const last = Math.floor((event.end - MARGIN) / SYNTH_FPS);
  const seconds = first + rng.below(last - first + 1);
  const truth: string = kind === 'colour' ? event.colour : event.shape;
  const pool: readonly string[] = kind === 'colour' ? COLOUR_NAMES : SHAPES;
  const wrong = rng.shuffled(pool.filter((word) => word !== truth)).slice(0, 3);
  const options = rng.shuffled([truth, ...wrong]);
  return { kind, video, event, seconds, options, answer: LETTERS[options.indexOf(truth)]! };
}

/** `count` different questions about one video: as (event, kind) repeats only when all were asked, uniform over them. */
export function questionsOf(
  video: SynthVideo,
  { seed, split, index, count }: { seed: number; split: Split; index: number; count: number },
): SynthQuestion[] {
  const rng = createRng(seed, 'synth', SPLITS.indexOf(split), index, 1);
  const seen = new Set<string>();
  const questions: SynthQuestion[] = [];
  while (questions.length < count) {
    const question = makeQuestion(video, rng);
    const key = `${question.kind} ${question.event.start}`;
    if (seen.has(key) && seen.size < 2 * video.events.length) continue;
    seen.add(key);
    questions.push(question);
  }
  return questions;
}

/** The text that the model reads before the frames. */
export function questionText({ kind, seconds, options }: Pick<SynthQuestion, 'kind' | 'seconds' | 'options'>): string {
  return [
    `What ${kind} is shown at ${clock(seconds)}?`,
    ...options.map((option, i) => `${LETTERS[i]}: ${option}`),
  ].join('\n');
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
