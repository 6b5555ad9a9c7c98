/** @file Parameters of the model: names in memory and on disk, shapes, first values, loading. */
import type { ParameterSet, ParameterSpec } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';

/** Every parameter by its name in memory, in a fixed order. `decayMatricesOnly`: no weight decay on biases and norms (torch decays all). */
export function parameterSpecs(_config: QwenVLConfig, _options: { decayMatricesOnly?: boolean } = {}): ParameterSpec[] {
  throw new Error('not there yet');
}

/** model.language_model.* → model.*, model.visual.* → visual.*; lm_head.weight stays. */
export function toDiskName(_name: string): string {
  throw new Error('not there yet');
}

/** The name in memory of a name of either naming. */
export function fromDiskName(_name: string): string {
  throw new Error('not there yet');
}

/** First values: normal(0, std) matrices (std: the config's initializer_range), norms 1, biases 0. A pure function of the seed. */
export function initialise(_config: QwenVLConfig, _seed: number, _std?: number): Map<string, Float32Array> {
  throw new Error('not there yet');
}

/** Tensors of a folder, by the name they have there. */
export interface WeightSource {
  names(): Iterable<string>;
  shape(name: string): readonly number[];
  /** The tensor as float32, row-major. */
  read(name: string): Float32Array | Promise<Float32Array>;
}

/**
 * Writes every tensor of `source` (either naming) into `parameters`.
 * A tied model's own copy of lm_head.weight is accepted and left out.
 * @throws InputError listing what is missing, unexpected or of another shape; nothing is written then.
 */
export async function loadWeights(_parameters: ParameterSet, _source: WeightSource): Promise<void> {
  throw new Error('not there yet');
}
