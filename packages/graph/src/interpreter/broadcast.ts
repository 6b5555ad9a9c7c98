/** @file Loops over broadcast operands. */
import { sizeOf } from '../ops.ts';
import type { Shape } from '../types.ts';
import type { Float64Tensor } from './kernel.ts';

/** Row-major strides of `shape` seen as `rank` axes, 0 along axes that are broadcast. */
function stridesOf(shape: Shape, rank: number): number[] {
  const strides = new Array<number>(rank).fill(0);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1) strides[rank - shape.length + i] = step;
    step *= shape[i]!;
  }
  return strides;
}

/** Calls `row` for each run along the last axis with the offset of the result and of each operand, and their steps along it. */
export function eachRow(
  shape: Shape,
  operands: readonly Shape[],
  row: (offset: number, length: number, starts: readonly number[], steps: readonly number[]) => void,
): void {
  const rank = Math.max(shape.length, 1);
  const full = shape.length === 0 ? [1] : shape;
  const length = full[rank - 1]!;
  const strides = operands.map((operand) => stridesOf(operand, rank));
  const steps = strides.map((s) => s[rank - 1]!);
  const starts = strides.map(() => 0);
  const position = new Array<number>(rank).fill(0);
  const total = sizeOf(full);
  for (let offset = 0; offset < total; offset += length) {
    row(offset, length, starts, steps);
    for (let axis = rank - 2; axis >= 0; axis--) {
      position[axis]!++;
      for (let k = 0; k < starts.length; k++) starts[k]! += strides[k]![axis]!;
      if (position[axis]! < full[axis]!) break;
      for (let k = 0; k < starts.length; k++) starts[k]! -= strides[k]![axis]! * full[axis]!;
      position[axis] = 0;
    }
  }
}

/** f over two broadcast operands. */
export function zip(
  shape: Shape,
  a: Float64Tensor,
  b: Float64Tensor,
  f: (x: number, y: number) => number,
): Float64Array {
  const out = new Float64Array(sizeOf(shape));
  const [x, y] = [a.data, b.data];
  eachRow(shape, [a.shape, b.shape], (offset, length, starts, steps) => {
    let [i, j] = [starts[0]!, starts[1]!];
    const [di, dj] = [steps[0]!, steps[1]!];
    for (let k = 0; k < length; k++, i += di, j += dj) out[offset + k] = f(x[i]!, y[j]!);
  });
  return out;
}
