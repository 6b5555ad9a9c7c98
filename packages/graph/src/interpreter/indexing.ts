/** @file Kernels of indexing ops. An index out of range throws; engines need not check. */
import { GraphError } from '../error.ts';
import { sizeOf } from '../ops.ts';
import type { GraphNode } from '../types.ts';
import type { Float64Tensor, Kernels } from './kernel.ts';

function checkRange(node: GraphNode, { data }: Float64Tensor, size: number): Float64Array {
  for (let i = 0; i < data.length; i++)
    if (!(data[i]! >= 0 && data[i]! < size))
      throw new GraphError(
        `op ${node.op} (node ${node.id}, scope '${node.scope}'): index ${data[i]} at ${i}, must be in [0, ${size})`,
      );
  return data;
}

export const INDEXING_KERNELS: Kernels<'gather_rows' | 'scatter_add_rows' | 'take_along_last' | 'scatter_add_last'> = {
  gather_rows: (node, inputs) => {
    const [table, indices] = [inputs[0]!, inputs[1]!];
    const width = sizeOf(table.shape.slice(1));
    const out = new Float64Array(sizeOf(node.shape));
    checkRange(node, indices, table.shape[0]!).forEach((row, i) => {
      out.set(table.data.subarray(row * width, (row + 1) * width), i * width);
    });
    return out;
  },
  scatter_add_rows: (node, inputs) => {
    const [updates, indices] = [inputs[0]!, inputs[1]!];
    const width = sizeOf(node.shape.slice(1));
    const out = new Float64Array(sizeOf(node.shape));
    checkRange(node, indices, node.attributes.rows).forEach((row, i) => {
      for (let j = 0; j < width; j++) out[row * width + j]! += updates.data[i * width + j]!;
    });
    return out;
  },
  take_along_last: (node, inputs) => {
    const [x, indices] = [inputs[0]!, inputs[1]!];
    const [size, taken] = [x.shape.at(-1)!, node.shape.at(-1)!];
    return checkRange(node, indices, size).map((index, i) => x.data[Math.floor(i / taken) * size + index]!);
  },
  scatter_add_last: (node, inputs) => {
    const [updates, indices] = [inputs[0]!, inputs[1]!];
    const { size } = node.attributes;
    const taken = updates.shape.at(-1)!;
    const out = new Float64Array(sizeOf(node.shape));
    checkRange(node, indices, size).forEach((index, i) => {
      out[Math.floor(i / taken) * size + index]! += updates.data[i]!;
    });
    return out;
  },
};
