/** @file Sums of gradients in float64. */
import { type GradientBuffer, GraphError } from '@frame-thinker/graph';
import { type ParameterLayout, slotOf } from './parameter-layout.ts';

/** @param sums the padded float64 region; asked for at each use, so that a released set refuses. */
export function createGradientBuffer(layout: ParameterLayout, sums: () => Float64Array): GradientBuffer {
  return {
    accumulate(name, data) {
      const { start, size } = slotOf(layout.slots, name, data.length);
      const target = sums().subarray(start, start + size);
      for (let i = 0; i < size; i++) target[i]! += data[i]!;
    },
    zero() {
      sums().fill(0);
    },
    read() {
      const [flat, source] = [new Float64Array(layout.size), sums()];
      let at = 0;
      for (const { start, size } of layout.slots.values()) {
        flat.set(source.subarray(start, start + size), at);
        at += size;
      }
      return flat;
    },
    write(flat) {
      if (flat.length !== layout.size)
        throw new GraphError(`gradients: ${flat.length} values for ${layout.size} parameters`);
      const target = sums();
      let at = 0;
      for (const { start, size } of layout.slots.values()) {
        target.set(flat.subarray(at, at + size), start);
        at += size;
      }
    },
    get(name) {
      const { start, size } = slotOf(layout.slots, name);
      return sums().slice(start, start + size);
    },
  };
}
