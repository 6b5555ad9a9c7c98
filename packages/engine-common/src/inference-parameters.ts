/** @file Weights alone, each tensor in its own array: no limit but the machine's memory. */
import { type GradientBuffer, GraphError, type ParameterSpec } from '@frame-thinker/graph';
import type { BoundParameters } from './bound-parameters.ts';
import { layOut, slotOf } from './parameter-layout.ts';

const refuse = (): never => {
  throw new GraphError('parameters: made with training: false, so they have no gradients, moments or optimizer');
};

/** A set that can only be read and written. A parameter takes memory when it is first written; one not yet written refuses to be read. */
export function createInferenceParameters(specs: readonly ParameterSpec[]): BoundParameters {
  const { slots } = layOut(specs);
  const tensors = new Map<string, Float32Array>();
  const gradients: GradientBuffer = { accumulate: refuse, zero: refuse, read: refuse, write: refuse, get: refuse };
  let version = 0;
  let released = false;
  const view = (name: string): Float32Array => {
    slotOf(slots, name);
    if (released) throw new GraphError('parameters: used after release');
    const tensor = tensors.get(name);
    if (!tensor) throw new GraphError(`parameter ${name}: was never written`);
    return tensor;
  };
  return {
    specs,
    step: 0,
    get version() {
      return version;
    },
    gradients,
    view,
    read: (name, kind = 'weight') => (kind === 'weight' ? view(name).slice() : refuse()),
    write(name, data) {
      if (released) throw new GraphError('parameters: used after release');
      slotOf(slots, name, data.length);
      // In place once it exists: programs hold views of it.
      const known = tensors.get(name);
      if (known) known.set(data);
      else tensors.set(name, data.slice());
      version += 1;
    },
    writeMoment: refuse,
    adamw: refuse,
    release() {
      tensors.clear();
      released = true;
    },
  };
}
