/** @file Gathers and scatter-adds. Sums go through ScatterElements: ScatterND's add races between threads on equal indices. */
import { sizeOf } from '@frame-thinker/graph';
import type { Lowerings } from './lowering.ts';

const axis = (int: number) => ({ axis: { int } });
const adding = (int: number) => ({ axis: { int }, reduction: { string: 'add' } });

export const INDEXING: Lowerings<'gather_rows' | 'scatter_add_rows' | 'take_along_last' | 'scatter_add_last'> = {
  gather_rows: ({ emit, inputs: [table, indices] }) =>
    emit.node('Gather', [table!.name, indices!.name], { attributes: axis(0) }),

  // The updates may be empty.
  scatter_add_rows: ({ emit, inputs: [updates, indices], shape }) => {
    const count = sizeOf(indices!.shape);
    const zeros = emit.filled(shape, 0);
    if (sizeOf(updates!.shape) === 0) return zeros;
    const row = shape.slice(1);
    const flat = emit.node('Reshape', [updates!.name, emit.int64s([count, ...row])]);
    // ScatterElements wants one index for each element of the updates.
    const column = emit.node('Reshape', [indices!.name, emit.int64s([count, ...row.map(() => 1)])]);
    const index = row.length === 0 ? column : emit.node('Expand', [column, emit.int64s([count, ...row])]);
    return emit.node('ScatterElements', [zeros, index, flat], { attributes: adding(0) });
  },

  take_along_last: ({ emit, inputs: [x, indices] }) =>
    emit.node('GatherElements', [x!.name, indices!.name], { attributes: axis(-1) }),

  // The updates may be empty.
  scatter_add_last: ({ emit, inputs: [updates, indices], shape }) => {
    const zeros = emit.filled(shape, 0);
    if (sizeOf(updates!.shape) === 0) return zeros;
    return emit.node('ScatterElements', [zeros, indices!.name, updates!.name], { attributes: adding(-1) });
  },
};
