/** @file What the engine needs of its own parameter sets beside the public interface. */
import type { ParameterSet } from '@frame-thinker/graph';

export interface BoundParameters extends ParameterSet {
  /** The weights themselves, no copy; they change with every write and step. @throws when there are none to give. */
  view(name: string): Float32Array;
}

export function isBound(parameters: ParameterSet): parameters is BoundParameters {
  return 'view' in parameters;
}
