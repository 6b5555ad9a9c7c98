/** @file Weights of a parameter set as tensors. */
import type { BoundParameters } from '@frame-thinker/engine-common';
import type { Shape } from '@frame-thinker/graph';
import type { Tfjs, TfTensor } from './tfjs.ts';

/**
 * Tensors of a set's weights, made when they are first asked for after a change. The native binding shares their memory
 * where it lies in the CPU's, WebAssembly copies them.
 */
export class WeightTensors {
  readonly #tf: Tfjs;
  readonly #parameters: BoundParameters;
  readonly #tensors = new Map<string, { tensor: TfTensor; version: number }>();

  constructor(tf: Tfjs, parameters: BoundParameters) {
    this.#tf = tf;
    this.#parameters = parameters;
  }

  get(name: string, shape: Shape): TfTensor {
    const { version } = this.#parameters;
    const known = this.#tensors.get(name);
    if (known?.version === version) return known.tensor;
    known?.tensor.dispose();
    const tensor = this.#tf.keep(this.#tf.tensor(this.#parameters.view(name), shape, 'float32'));
    this.#tensors.set(name, { tensor, version });
    return tensor;
  }

  release(): void {
    for (const { tensor } of this.#tensors.values()) tensor.dispose();
    this.#tensors.clear();
  }
}
