/** @file What the controller asks of a worker. Arrays and records here are plain data; frames.ts and wire.ts put them on the wire. */
import type {
  AdamWOptions,
  Cotangents,
  Group,
  LogProbs,
  RolloutLimits,
  SamplingOptions,
  Trajectory,
  UpdateResult,
} from '@frame-thinker/core';

/** From token `at` on, mRoPE positions are `by` larger (as if `by` positions of images had been there). */
export interface PositionJump {
  at: number;
  by: number;
}

/** An image whose pixels travel with the batch: uint8 RGB, row-major, at the size that the model sees (sides are multiples of patch · merge). */
export interface InlineImage {
  width: number;
  height: number;
  data: Uint8Array;
  /** Index in ids of the image's first image_pad. */
  position: number;
}

/** One sequence of a batch. Its images are `frames` and `images` together, ordered by position. */
export interface BatchRow extends Pick<Trajectory, 'ids' | 'mask' | 'promptLength' | 'frames'> {
  jumps?: readonly PositionJump[];
  images?: readonly InlineImage[];
}

/** A micro-batch; core's Batch is one. */
export interface WorkerBatch {
  id: string;
  trajectories: readonly BatchRow[];
}

export interface ScoreOptions {
  temperature: number;
  /** Token ids with −inf before the softmax. */
  ban: readonly number[];
}

/** What a forward gives beside log-probs and entropies. */
export interface ForwardOptions extends ScoreOptions {
  sumPiSquared?: boolean;
}

/** A look: n frames, each at most maxWidth x maxHeight. */
export interface LookSettings {
  frames: number;
  maxWidth: number;
  maxHeight: number;
}

/** How questions become prompts and actions become observations; agent-env's options by the same names. */
export interface EnvironmentSettings {
  grammar: 'strict' | 'reference';
  /** Observations in the model's chat template, or the original's bytes. */
  template: 'chat' | 'reference';
  regimes: { limitSeconds: number; short: LookSettings; long: LookSettings };
  /** 'default', 'none', or the text itself. */
  systemPrompt: string;
  /** `reference`: prompts, environment and replies of the original's evaluation program. */
  compat: 'none' | 'reference';
  /** Name to module path, relative to baseDir. */
  registry: Record<string, string>;
  baseDir: string;
  /** What the assistant's turn is opened with in groups that can only answer. Default `<think>`. */
  answerPrefill?: string;
  /** Ablations: what every look shows in place of the video's own frames. */
  framesFrom?: ReplacedFrames;
}

/** Frames of one grey (`level` 0 … 255), or the same indices (clamped) of the video that comes next in `videos`. */
export type ReplacedFrames = { kind: 'grey'; level: number } | { kind: 'other'; videos: readonly string[] };

export interface WorkerInit {
  /** HF folder of the policy, or of what the critic starts from. */
  path: string;
  /** A critic has a value head in place of the LM head: it gives values, and does not roll out. Default policy. */
  role?: 'policy' | 'critic';
  dtype: 'float32';
  seed: number;
  engine:
    | { name: 'onnx'; provider: 'auto' | 'cpu' | 'webgpu' | 'cuda'; threads: number }
    | { name: 'tfjs'; backend: 'auto' | 'gpu' | 'node' | 'wasm'; threads: number };
  /** False: weights only, without gradients, moments and optimizer. Default true. */
  training?: boolean;
  /** Absent: the worker only scores and trains. */
  rollout?: RolloutLimits;
  environment?: EnvironmentSettings;
  /** Bytes of decoded frames that the worker keeps. */
  frameStoreBytes?: number;
}

export interface Capabilities {
  engine: string;
  provider: string;
  /** Why something faster than the provider was passed over. */
  note?: string;
  parameters: number;
  vocabSize: number;
  /** The optional methods that this worker has. */
  methods: readonly string[];
  /** image_pad, video_pad, vision_start and vision_end: what rollout and training ban. */
  visionIds: readonly number[];
  eosIds: readonly number[];
}

export interface Health {
  pid: number;
  rssBytes: number;
  upMs: number;
  /** The method being run now. */
  busy?: string;
  busyMs?: number;
}

/** The controller's view of one worker, or of a pool that acts as one. Calls may be queued; each rejects with a WorkerError. */
export interface TrainedWorker {
  readonly capabilities: Capabilities;
  /** One AdamW step from the gradient buffer, which it clears. */
  applyUpdate(options: AdamWOptions): Promise<UpdateResult>;
  zeroGradients(): Promise<void>;
  /** Writes weights and moments as the shards of a checkpoint's actor folder. Resolves to AdamW's step count. */
  saveTo(directory: string, options: { worldSize: number }): Promise<number>;
  /** Takes weights and moments from such a folder, of any world size, and AdamW's step count. Gradient sums are 0 then. */
  loadFrom(directory: string, options: { step: number }): Promise<void>;
  /** Writes an HF folder of the current weights. */
  exportTo(directory: string): Promise<void>;
  health(): Promise<Health>;
  /** Ends the worker; pending calls reject. */
  close(): Promise<void>;
}

export interface PolicyWorker extends TrainedWorker {
  forward(batch: WorkerBatch, options: ForwardOptions): Promise<LogProbs>;
  /** Adds to the gradient buffer; returns fresh log-probs and entropies. */
  backward(batch: WorkerBatch, cotangents: Cotangents, options: ScoreOptions): Promise<LogProbs>;
  /** Trajectories of each group as the group finishes; order within a group is by sample. */
  rollout(groups: readonly Group[], sampling: SamplingOptions): AsyncIterable<Trajectory[]>;
}

/** A worker of role critic. Values are aligned with ids: value i is of the state before ids[i], 0 where the mask is 0. */
export interface CriticWorker extends TrainedWorker {
  values(batch: WorkerBatch): Promise<Float32Array[]>;
  /** Adds the gradient of Σ dValues·values to the gradient buffer; returns fresh values. */
  backwardValues(batch: WorkerBatch, dValues: readonly Float32Array[]): Promise<Float32Array[]>;
}
