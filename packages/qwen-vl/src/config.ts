/** @file What of a Hugging Face config.json of Qwen2.5-VL the model is built from. */

export interface VisionConfig {
  depth: number;
  hidden: number;
  heads: number;
  headDim: number;
  intermediate: number;
  /** Side of a patch in pixels. */
  patch: number;
  /** Frames in a patch. */
  temporalPatch: number;
  /** Side of a merge block in patches: merge² patches make one token. */
  merge: number;
  channels: number;
  /** Side of an attention window in pixels. */
  window: number;
  /** Blocks with full attention; the others attend within windows. */
  fullAttention: readonly number[];
  ropeTheta: number;
  eps: number;
  initializerRange: number;
}

export interface QwenVLConfig {
  vocab: number;
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  eps: number;
  ropeTheta: number;
  /** Sizes of the temporal, height and width sections of headDim / 2. */
  mropeSection: readonly [number, number, number];
  /** The LM head is the embedding. */
  tied: boolean;
  maxPositions: number;
  initializerRange: number;
  imageToken: number;
  videoToken: number;
  visionStart: number;
  visionEnd: number;
  vision: VisionConfig;
}

/**
 * Reads config.json in both layouts: text_config / rope_parameters (transformers 5) and flat with rope_scaling (4.x).
 * @throws InputError naming the key that is missing or the feature that is not supported.
 */
export function parseConfig(_json: unknown): QwenVLConfig {
  throw new Error('not there yet');
}
