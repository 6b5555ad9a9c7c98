/** @file The frame-spotlight environment: sampling regimes, action grammar, prompts, environments, verdicts. */
import type { Action, Environment, FrameRef, ImageSource, Message, Sample } from '@frame-thinker/core';

const soon = (): never => {
  throw new Error('agent-env: not written yet');
};

/** Frames a look shows, and the largest size of one, in pixels. */
export interface Regime {
  frames: number;
  maxWidth: number;
  maxHeight: number;
}
/** Videos of at most `limitSeconds` (or of unknown length) take `short`, longer ones `long`. */
export interface RegimeOptions {
  limitSeconds: number;
  short: Regime;
  long: Regime;
}
export interface Size {
  width: number;
  height: number;
}
/** The reference's: 8 frames of at most 640x360 up to 300 s, else 12 of at most 448x252. */
export const REFERENCE_REGIMES: RegimeOptions = {
  limitSeconds: 300,
  short: { frames: 8, maxWidth: 640, maxHeight: 360 },
  long: { frames: 12, maxWidth: 448, maxHeight: 252 },
};
export const chooseRegime = (_: { durationSeconds?: number | undefined; regimes?: RegimeOptions }): Regime => soon();
/** Downscale only, aspect kept, truncated. */
export const fitSize = (_size: Size, _regime: Pick<Regime, 'maxWidth' | 'maxHeight'>): Size => soon();
export const firstLook = (_total: number, _n: number): number[] => soon();
export const zoomIndices = (_a: number, _b: number, _n: number): number[] => soon();

export type Grammar = 'strict' | 'reference';
export type ParsedAction =
  | { kind: 'action'; action: Action }
  | { kind: 'no_action'; message: string }
  | { kind: 'bad_action'; message: string };
/** The action that the environment would execute for one assistant turn. Pure. */
export const parseAction = (_text: string, _grammar: Grammar): ParsedAction => soon();

/** How an observation is put into the model's text. `chat`: the model's own chat template (the rollout's work); `reference`: the original's literal bytes. */
export type ObservationTemplate = 'chat' | 'reference';
/** The original's literal observation: closes the turn, a user turn with `message`, opens the assistant turn. */
export const referenceObservation = (_message: string): string => soon();

/** What the environment needs of a video. */
export interface VideoFacts extends Size {
  fps: number;
  totalFrames: number;
}
/** Where frames come from: the video package's frame store in the product, a fake in tests. */
export interface FrameSource {
  probe(video: string): Promise<VideoFacts>;
  /** Frames in the order of `indices`, decoded at `size`; throws when one cannot be read. */
  get(video: string, indices: readonly number[], size: Size): Promise<FrameRef[]>;
}

export interface PromptOptions {
  frames: FrameSource;
  regimes?: RegimeOptions;
  /** `default`: ours, with n filled in; `none`; or the text itself (`{n}` is filled in). A row's own system message wins. */
  systemPrompt?: 'default' | 'none' | (string & {});
  /** `reference`: frames written as the original's evaluation program does. Default `none`. */
  compat?: 'none' | 'reference';
}
export interface Prompt {
  /** Chat messages; each `<image>` marks where the next of `images` goes. */
  messages: Message[];
  images: ImageSource[];
  regime: Regime;
  /** Absent when the row gives no video. */
  totalFrames?: number;
  fps?: number;
  /** Facts of the row that differ from the file's, in words (the row's are used). */
  warnings: string[];
}
/** The first prompt of an episode. @throws InputError naming the row. */
export const buildPrompt = (_sample: Sample, _options: PromptOptions): Promise<Prompt> => soon();

export interface SpotlightOptions {
  frames: FrameSource;
  /** Default `strict`. */
  grammar?: Grammar;
  regimes?: RegimeOptions;
}
/** `Observation.message` is always the plain message; wrap it with the chat template or `referenceObservation`. */
export const createSpotlightEnvironment = (_: SpotlightOptions): Environment => soon();

/** Builds an environment; a registry module's default export is one. */
export type EnvironmentFactory = (options: SpotlightOptions & Record<string, unknown>) => Environment;
export interface EnvironmentRegistry {
  names: string[];
  /** @throws InputError naming the known environments. */
  create(name: string): Promise<Environment>;
}
/** `env.registry`: name -> module path (relative to `baseDir`, default the working folder). `think_with_video` is always there. */
export const createEnvironmentRegistry = (_: {
  registry?: Record<string, string>;
  baseDir?: string;
  options: SpotlightOptions & Record<string, unknown>;
}): EnvironmentRegistry => soon();

/** "C.", "(C)", " c " -> "C". */
export const normalizeAnswer = (_answer: string): string => soon();
/** Whether the answer is right, both sides normalised. */
export const verdict = (_answer: string, _groundTruth: string): boolean => soon();
