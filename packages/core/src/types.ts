/** @file The types that packages exchange. Grow them, don't fork them. */
import type { Rng } from './random.ts';

/** One frame that the model saw: which, at what size, and the hash of its RGB pixels. */
export interface FrameRef {
  video: string;
  index: number;
  /** Size in pixels at which it was decoded (after the regime's downscaling); the model's smart_resize starts from it. */
  width: number;
  height: number;
  /** Hex sha256 of the uint8 RGB pixels of that size, row-major; empty: not known yet (frames of demonstrations), so not checked. */
  sha256: string;
}

/** An image of a prompt: a file, encoded bytes (PNG/JPEG), raw RGB, or a frame of a video. */
export type ImageSource =
  | { kind: 'path'; path: string }
  | { kind: 'bytes'; bytes: Uint8Array }
  | { kind: 'rgb'; width: number; height: number; data: Uint8Array }
  | { kind: 'frame'; frame: FrameRef };

export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** A row of a data set, in verl's row form. */
export interface Sample {
  uid: string;
  prompt: Message[];
  images?: ImageSource[];
  videoPath?: string;
  fps?: number;
  totalFrames?: number;
  dataSource: string;
  envName?: string;
  groundTruth: string;
  extraInfo: Record<string, unknown>;
}

/** The three actions of the grammar. */
export type Action =
  | { kind: 'frames'; start: number; end: number }
  | { kind: 'time'; time: string; seconds: number }
  | { kind: 'answer'; answer: string };

/** Why an episode ended. */
export const END_REASONS = [
  'answer',
  'no_action',
  'bad_action',
  'range_too_short',
  'out_of_range',
  'decode_error',
  'max_turns',
  'turn_length',
  'length',
  'too_many_images',
  'empty',
  'env_error',
] as const;

export type EndReason = (typeof END_REASONS)[number];

/** Ends that are not the policy's doing: left out of group statistics and loss, and counted. */
export const ERROR_ENDS: readonly EndReason[] = ['decode_error', 'env_error'];

/** One span of a trajectory, with who wrote it. */
export interface Turn {
  role: 'assistant' | 'user';
  /** Token span in `Trajectory.ids`: [start, end). */
  start: number;
  end: number;
  text: string;
  /** The action that was executed (assistant turns). */
  action?: Action;
  /** What the environment recorded as its reply (assistant turns): the message and, for a time call, the frame number. */
  observation?: string;
  /** Frame number that the environment returned for a time call. */
  frameNumber?: number;
  /** Indices of the frames that the environment returned for a choice. */
  frameIndices?: number[];
  error?: string;
  ms: number;
}

/** The exact tokens that went through the model, and everything the environment recorded. */
export interface Trajectory {
  uid: string;
  /** Which of the n samples of its question. */
  sample: number;
  /** Global training step (0 in validation and inference). */
  step: number;
  ids: Int32Array;
  /** 1 on tokens that the model sampled, 0 on prompt and observations. Same length as ids. */
  mask: Uint8Array;
  /** Log-probability of ids[i] given ids[<i] at generation time; 0 where mask is 0. Same length as ids. */
  logProbs: Float32Array;
  promptLength: number;
  /** Frames in order of appearance; `position` = index in ids of the frame's first image_pad. */
  frames: (FrameRef & { position: number })[];
  turns: Turn[];
  end: EndReason;
  toolCalls: number;
}

export interface Reward {
  total: number;
  acc: number;
  format: number;
  other: number;
  /** Rules that failed, by name, with the turn (index among the assistant turns) where they did. */
  rules: { name: string; turn: number; message: string }[];
  extras: Record<string, number>;
}

export interface Observation {
  /** Text for the user turn; `<image>` marks where each of `frames` goes. Absent when done. */
  message?: string;
  frames: FrameRef[];
  done: boolean;
  reason?: EndReason;
  /** What was executed, for the trajectory's record. */
  action?: Action;
  frameNumber?: number;
  frameIndices?: number[];
  error?: string;
}

export interface Environment {
  reset(sample: Sample, rng: Rng): Promise<void>;
  step(text: string, rng: Rng): Promise<Observation>;
  close(): Promise<void>;
}

/** A question with its n samples still to be made: the unit of scheduling. */
export interface Group {
  sample: Sample;
  /** Position of the question in the batch (validation, inference: the data set row). */
  position: number;
  n: number;
  step: number;
  /** One turn that can only answer: our system message allows nothing else, and the turn is opened with the settings' prefill. */
  answerOnly?: boolean;
}

/** A micro-batch for forward and backward: whole trajectories, usually one group. */
export interface Batch {
  id: string;
  trajectories: Pick<Trajectory, 'ids' | 'mask' | 'promptLength' | 'frames'>[];
}

/** Per trajectory, aligned with ids: value i belongs to ids[i] given ids[<i]; element 0 is 0. */
export interface LogProbs {
  logProbs: Float32Array[];
  entropy: Float32Array[];
  /** Σ over the vocabulary of π², where it was asked for. */
  sumPiSquared?: Float32Array[];
}

/** Gradients of the loss by log-prob and entropy, aligned like LogProbs. */
export interface Cotangents {
  dLogProbs: Float32Array[];
  dEntropy: Float32Array[];
}

export interface AdamWOptions {
  lr: number;
  betas: [number, number];
  eps: number;
  weightDecay: number;
  /** Global-norm clip; Infinity: none. */
  maxNorm: number;
}

export interface UpdateResult {
  /** Global L2 norm of the gradient before clipping. */
  gradNorm: number;
  /** False when the norm was not finite and the update was skipped. */
  applied: boolean;
}

/** How tokens are drawn. */
export interface SamplingOptions {
  /** 0 is greedy, as is doSample false. */
  temperature: number;
  /** 1: off. Only for inference: log-probs are of the full softmax all the same. */
  topP: number;
  /** −1 or 0: off. */
  topK: number;
  doSample: boolean;
}

/** Limits of an episode (lengths in tokens), and the decoder's fixed batch. */
export interface RolloutLimits {
  slots: number;
  maxPromptLength: number;
  /** What becomes of a longer prompt: refused, or cut at its left or right end. Default `error`. */
  truncation?: 'error' | 'left' | 'right';
  maxResponseLength: number;
  singleResponseMaxTokens: number;
  maxTurns: number;
  maxImages: number;
}
