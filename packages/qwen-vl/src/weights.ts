/** @file First values of the parameters, and loading them from a folder's tensors. */
import { createRng, InputError } from '@frame-thinker/core';
import { type ParameterSet, sameShape, sizeOf } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { fromDiskName, LM_HEAD, parameterSpecs, VALUE_HEAD, VISUAL } from './names.ts';

/** First values: normal(0, std) matrices (std: the config's initializer_range), norms 1, biases 0. A pure function of the seed. */
export function initialise(config: QwenVLConfig, seed: number, std?: number): Map<string, Float32Array> {
  return new Map(
    parameterSpecs(config).map(({ name, shape }, i) => {
      const values = new Float32Array(sizeOf(shape));
      if (shape.length > 1) {
        const { normal } = createRng(seed, 'init', 0, i);
        const range = name.startsWith(VISUAL) ? config.vision.initializerRange : config.initializerRange;
        for (let j = 0; j < values.length; j++) values[j] = (std ?? range) * normal();
      } else if (name.endsWith('.weight')) values.fill(1);
      return [name, values];
    }),
  );
}

/** First values of a critic's head: normal(0, initializer_range) weights, bias 0. A pure function of the seed. */
export function initialiseValueHead(config: QwenVLConfig, seed: number): Map<string, Float32Array> {
  const { normal } = createRng(seed, 'init', 0, parameterSpecs(config).length);
  const weight = Float32Array.from({ length: config.hidden }, () => config.initializerRange * normal());
  return new Map([
    [VALUE_HEAD.weight, weight],
    [VALUE_HEAD.bias, new Float32Array(1)],
  ]);
}

/** Tensors of a folder, by the name they have there. */
export interface WeightSource {
  names(): Iterable<string>;
  shape(name: string): readonly number[];
  /** The tensor as float32, row-major. */
  read(name: string): Float32Array | Promise<Float32Array>;
}

const listed = (names: readonly string[]): string =>
  names.slice(0, 5).join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : '');

/**
 * Writes every tensor of `source` (either naming) into `parameters`.
 * An lm_head.weight that the model has no use for, and rotary inv_freq buffers, are left out.
 * @param initial values of parameters that the source need not have
 * @throws InputError listing what is missing, unexpected or of another shape; nothing is written then.
 */
export async function loadWeights(
  parameters: ParameterSet,
  source: WeightSource,
  initial: ReadonlyMap<string, Float32Array> = new Map(),
): Promise<void> {
  const shapes = new Map(parameters.specs.map(({ name, shape }) => [name, shape]));
  const found = new Map<string, string>();
  const unexpected: string[] = [];
  const wrong: string[] = [];
  for (const diskName of source.names()) {
    const name = fromDiskName(diskName);
    const shape = shapes.get(name);
    if (!shape) {
      if (name !== LM_HEAD && !name.endsWith('.inv_freq')) unexpected.push(diskName);
      continue;
    }
    found.set(name, diskName);
    const there = source.shape(diskName);
    if (!sameShape(there, shape)) wrong.push(`${diskName} [${there.join(', ')}] instead of [${shape.join(', ')}]`);
  }
  const missing = [...shapes.keys()].filter((name) => !found.has(name) && !initial.has(name));
  const problems = [
    missing.length > 0 && `missing: ${listed(missing)}`,
    unexpected.length > 0 && `unexpected: ${listed(unexpected)}`,
    wrong.length > 0 && `of another shape: ${listed(wrong)}`,
  ].filter((p) => p !== false);
  if (problems.length > 0)
    throw new InputError(`the weights do not fit config.json (${problems.join('; ')}); are both of the same model?`);
  for (const [name, values] of initial) if (!found.has(name)) parameters.write(name, values);
  for (const [name, diskName] of found) parameters.write(name, await source.read(diskName));
}
