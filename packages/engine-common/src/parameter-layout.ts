/** @file Where each parameter lies in a flat buffer. */
import { GraphError, type ParameterSpec, sizeOf } from '@frame-thinker/graph';

/** Elements each parameter's start is a multiple of: 64 bytes of float32, and what the kernel counts in. */
export const ALIGNMENT = 16;

export interface Slot {
  readonly spec: ParameterSpec;
  readonly size: number;
  /** First element in the padded layout. */
  readonly start: number;
  /** Elements up to the next slot. */
  readonly padded: number;
}

export interface ParameterLayout {
  readonly slots: ReadonlyMap<string, Slot>;
  /** Elements of all parameters, without padding. */
  readonly size: number;
  /** Elements with padding. */
  readonly padded: number;
}

/** @throws GraphError when a name comes twice. */
export function layOut(specs: readonly ParameterSpec[]): ParameterLayout {
  const slots = new Map<string, Slot>();
  let [size, start] = [0, 0];
  for (const spec of specs) {
    if (slots.has(spec.name)) throw new GraphError(`parameter ${spec.name}: given twice`);
    const count = sizeOf(spec.shape);
    const padded = Math.ceil(count / ALIGNMENT) * ALIGNMENT;
    slots.set(spec.name, { spec, size: count, start, padded });
    size += count;
    start += padded;
  }
  return { slots, size, padded: start };
}

/** The slot of a name. @throws GraphError when there is none, or `length` is given and differs from its size. */
export function slotOf(slots: ReadonlyMap<string, Slot>, name: string, length?: number): Slot {
  const slot = slots.get(name);
  if (!slot) throw new GraphError(`parameter ${name}: not in this parameter set`);
  if (length !== undefined && length !== slot.size)
    throw new GraphError(`parameter ${name}: ${length} values for [${slot.spec.shape.join(', ')}]`);
  return slot;
}
