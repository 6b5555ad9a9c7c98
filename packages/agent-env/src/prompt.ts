/** @file The first prompt of an episode: rules, question, options, and the first look. */
import { type ImageSource, InputError, type Message, type Sample } from '@frame-thinker/core';
import type { FrameSource } from './frame-source.ts';
import { compactFrames, frameLines } from './observations.ts';
import {
  chooseRegime,
  durationOf,
  firstLook,
  fitSize,
  REFERENCE_REGIMES,
  type Regime,
  type RegimeOptions,
} from './regimes.ts';
import { probeOnce, rowFacts, rowName, sourceSize } from './sample-facts.ts';

export interface PromptOptions {
  frames: FrameSource;
  regimes?: RegimeOptions;
  /** `default`: ours; `answer-only`: ours without tools (a last try); `none`; or the text itself. `{n}` is filled in. A row's own system message wins. */
  systemPrompt?: 'default' | 'answer-only' | 'none' | (string & {});
  /** `reference`: frames written as the original's evaluation program does. Default `none`. */
  compat?: 'none' | 'reference';
}

export interface Prompt {
  /** Chat messages; each `<image>` marks where the next of `images` goes. */
  messages: Message[];
  images: ImageSource[];
  regime: Regime;
  /** Absent when neither row nor video says. */
  totalFrames?: number;
  fps?: number;
}

const SYSTEM_PROMPT = `You are an expert who answers questions about a video by analysing it iteratively. At first you see a few frames, sampled uniformly from the whole video.

In every turn, write your reasoning between <think> and </think>, then exactly one action between <action> and </action>:
1. choose frames between START_FRAME and END_FRAME
   shows you frames from within that range. Their number is fixed, currently {n}; the range must hold more frames than that. End your reasoning with the two frame numbers.
2. get frame number at time MM:SS
   tells you which frame is shown at that time. Convert hours to minutes: 1 hour 2 minutes 30 seconds is 62:30. Then look at a range that contains this frame.
3. output answer: OPTION
   gives your final answer, the letter of one option, and ends the analysis. Answer when you are confident.

Never choose the same range or ask for the same time twice.`;

const ANSWER_ONLY_PROMPT = `You are an expert who answers questions about a video. You see {n} frames, sampled uniformly from the whole video.

Write your reasoning between <think> and </think>, then your answer as <action>output answer: OPTION</action>, where OPTION is the letter of one option. No other action is possible.`;

const PROMPTS: Record<string, string> = { default: SYSTEM_PROMPT, 'answer-only': ANSWER_ONLY_PROMPT };

const MARK = '<image>';
const LABEL = /^\(?[A-Z][.:)]/;

/** The question, then its options one a line, lettered unless they are already. */
export function formatQuestion(question: string, options: readonly string[] = []): string {
  const lines = options.map((option, i) => (LABEL.test(option) ? option : `${String.fromCharCode(65 + i)}. ${option}`));
  return [question, ...lines].join('\n');
}

function refuseMark(sample: Sample, column: string, text: unknown): void {
  const at = typeof text === 'string' ? text.indexOf(MARK) : -1;
  if (at >= 0)
    throw new InputError(
      `${rowName(sample)}, column ${column}, character ${at + 1}: "${MARK}" in the text would be taken for an image; remove it`,
    );
}

function optionsOf(sample: Sample): string[] {
  const { options } = sample.extraInfo;
  if (options === undefined || options === null) return [];
  const list = Array.isArray(options) ? options : typeof options === 'object' ? Object.values(options) : undefined;
  if (!list?.every((option) => typeof option === 'string'))
    throw new InputError(`${rowName(sample)}, column options: not a list of texts`);
  return list;
}

function givenMessages(sample: Sample): Message[] {
  if (sample.prompt.length > 0) return sample.prompt.map((message) => ({ ...message }));
  const { question } = sample.extraInfo;
  if (typeof question !== 'string' || question === '')
    throw new InputError(`${rowName(sample)}: neither a prompt nor a question`);
  return [{ role: 'user', content: formatQuestion(question, optionsOf(sample)) }];
}

/**
 * The row's messages, or one made of its question and options; without any system message of ours.
 * @throws InputError naming the row: no question, marks and images that differ in number, a mark in a text without images.
 */
export function rowMessages(sample: Sample): Message[] {
  refuseMark(sample, 'question', sample.extraInfo.question);
  const messages = givenMessages(sample);
  if (!sample.images?.length) {
    for (const [i, { content }] of messages.entries()) refuseMark(sample, `prompt[${i}]`, content);
    return messages;
  }
  const marks = messages.reduce((sum, { content }) => sum + content.split(MARK).length - 1, 0);
  if (marks !== sample.images.length)
    throw new InputError(
      `${rowName(sample)}: ${marks} "${MARK}" marks in the prompt, but ${sample.images.length} images`,
    );
  return messages;
}

function withSystem(messages: Message[], systemPrompt: string, n: number): Message[] {
  if (systemPrompt === 'none' || messages.some((message) => message.role === 'system')) return messages;
  const content = (PROMPTS[systemPrompt] ?? systemPrompt).replaceAll('{n}', String(n));
  return [{ role: 'system', content }, ...messages];
}

/**
 * The first prompt: the row's own frames when it has images, else n frames sampled over its whole video.
 * @throws InputError naming the row: no question, no video, marks and images that differ in number, a mark in the question.
 */
export async function buildPrompt(
  sample: Sample,
  { frames, regimes = REFERENCE_REGIMES, systemPrompt = 'default', compat = 'none' }: PromptOptions,
): Promise<Prompt> {
  const messages = rowMessages(sample);
  const row = rowFacts(sample);
  // A row of texts alone is a question like any other when no environment is to show frames.
  if (sample.images?.length || (row.video === '' && sample.envName === undefined && sample.prompt.length > 0)) {
    const regime = chooseRegime({ durationSeconds: durationOf(row), regimes });
    const { video: _, ...known } = row;
    return {
      messages: withSystem(messages, systemPrompt, regime.frames),
      images: [...(sample.images ?? [])],
      regime,
      ...known,
    };
  }
  if (row.video === '')
    throw new InputError(`${rowName(sample)}: no images and no video: give images, video or extra_info.video_path`);
  const probe = probeOnce(frames, row.video);
  const file = await probe();
  const { fps, totalFrames } = { ...file, ...row };
  if (totalFrames < 1) throw new InputError(`${rowName(sample)}: ${row.video} has no frames`);
  const regime = chooseRegime({ durationSeconds: durationOf({ fps, totalFrames }), regimes });
  const indices = firstLook(totalFrames, regime.frames);
  const shown = await frames.get(row.video, indices, fitSize(await sourceSize(sample, probe), regime));
  const last = messages.findLast((message) => message.role === 'user');
  if (!last) throw new InputError(`${rowName(sample)}: the prompt has no user message`);
  last.content += compat === 'reference' ? `\n${compactFrames(indices)}` : `\n\n${frameLines(indices)}`;
  return {
    messages: withSystem(messages, systemPrompt, regime.frames),
    images: shown.map((frame) => ({ kind: 'frame', frame })),
    regime,
    totalFrames,
    fps,
  };
}
