/** @file Tensors that lie in another one by turns, so that all can be written while it is read once. */
import { InvariantError } from '@frame-thinker/core';
import { elementCount } from './dtype.ts';
import { joinTensors, type RangedTensor, rowsOfTensor } from './ranged-tensor.ts';

/** Rows of `source` by turns: `rows[0]` of strand 0, `rows[1]` of strand 1, …, then strand 0 again. */
export interface Weave {
  readonly source: RangedTensor;
  readonly rows: readonly number[];
}

/** One of a weave's tensors, or several one after the other. It can be read alone, as any tensor. */
export interface WovenTensor extends RangedTensor {
  readonly weave: Weave;
  readonly strands: readonly number[];
}

export const isWoven = (tensor: RangedTensor): tensor is WovenTensor => 'weave' in tensor;

/** The strands of a weave. `rows` must divide the rows of its source. */
export function wovenTensor(weave: Weave, strands: readonly number[]): WovenTensor {
  const { source, rows } = weave;
  const turn = rows.reduce((sum, n) => sum + n, 0);
  const turns = (source.shape[0] as number) / turn;
  if (!Number.isInteger(turns)) throw new InvariantError(`${source.shape[0]} rows in turns of ${turn}`);
  const parts = strands.flatMap((strand) => {
    const before = rows.slice(0, strand).reduce((sum, n) => sum + n, 0);
    return Array.from({ length: turns }, (_, t) =>
      rowsOfTensor(source, t * turn + before, t * turn + before + (rows[strand] as number)),
    );
  });
  return { ...joinTensors(parts, 0), weave, strands };
}

/** Where a piece of the source goes: element `at` of a strand. */
export interface WovenPiece {
  readonly strand: number;
  readonly at: number;
  /** Elements of the source. */
  readonly begin: number;
  readonly end: number;
}

/** Cuts elements [begin, end) of the source into the strands' pieces, in order. */
export function* wovenPieces({ source, rows }: Weave, begin: number, end: number): Generator<WovenPiece> {
  const row = elementCount(source.shape.slice(1));
  const turn = rows.reduce((sum, n) => sum + n, 0) * row;
  for (let at = begin; at < end; ) {
    const turns = Math.floor(at / turn);
    let within = at - turns * turn;
    let strand = 0;
    while (within >= (rows[strand] as number) * row) {
      within -= (rows[strand] as number) * row;
      strand++;
    }
    const length = (rows[strand] as number) * row;
    const next = Math.min(end, at + length - within);
    yield { strand, at: turns * length + within, begin: at, end: next };
    at = next;
  }
}
