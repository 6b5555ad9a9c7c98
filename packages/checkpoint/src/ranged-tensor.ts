/** @file Tensors that are read by ranges of their elements, and how they are put together without being in memory. */
import { InvariantError } from '@frame-thinker/core';
import { type Dtype, elementCount, sizeOfDtype } from './dtype.ts';
import { PIECE_BLOCK, withPiece } from './piece-memory.ts';

/** A tensor of which any range can be read, row-major. Reading in order is cheapest. */
export interface RangedTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Fills `target` with elements from number `begin` on, little-endian; it holds whole elements. */
  read(begin: number, target: Uint8Array): void;
  /** Equal for two tensors only if their bytes are; null where nothing is known without reading. */
  readonly fingerprint: string | null;
}

/** Rows [start, end) of dim 0. */
export function rowsOfTensor(tensor: RangedTensor, start: number, end: number): RangedTensor {
  const [rows = 0, ...rest] = tensor.shape;
  if (start < 0 || end < start || end > rows) throw new InvariantError(`rows ${start}…${end} of ${rows}`);
  if (start === 0 && end === rows) return tensor;
  const skip = start * elementCount(rest);
  return {
    dtype: tensor.dtype,
    shape: [end - start, ...rest],
    fingerprint: tensor.fingerprint && `${tensor.fingerprint} rows ${start}…${end}`,
    read: (begin, target) => tensor.read(begin + skip, target),
  };
}

/** The same elements in another shape. */
export function reshapeTensor(tensor: RangedTensor, shape: readonly number[]): RangedTensor {
  if (elementCount(shape) !== elementCount(tensor.shape))
    throw new InvariantError(`[${tensor.shape}] cannot be shaped as [${shape}]`);
  return { ...tensor, shape, read: (begin, target) => tensor.read(begin, target) };
}

/** Index of the part that holds column `at`, of parts that begin at `starts` (rising; empty parts share their start). */
function partAt(starts: readonly number[], at: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] as number) <= at) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Tensors put side by side along a dim; they have one dtype, and shapes that differ on that dim at most. */
export function joinTensors(parts: readonly RangedTensor[], dim: number): RangedTensor {
  const [first] = parts;
  if (!first || dim < 0 || dim >= first.shape.length) throw new InvariantError(`${parts.length} tensors on dim ${dim}`);
  if (parts.length === 1) return first;
  const { dtype } = first;
  const size = sizeOfDtype(dtype);
  const other = (tensor: RangedTensor) => String(tensor.shape.map((n, d) => (d === dim ? -1 : n)));
  for (const part of parts)
    if (part.dtype !== dtype || other(part) !== other(first))
      throw new InvariantError(`${part.dtype} [${part.shape}] beside ${dtype} [${first.shape}] on dim ${dim}`);
  const length = parts.reduce((sum, part) => sum + (part.shape[dim] as number), 0);
  const shape = first.shape.map((n, d) => (d === dim ? length : n));
  const inner = elementCount(shape.slice(dim + 1));
  const widths = parts.map((part) => (part.shape[dim] as number) * inner);
  const starts: number[] = [];
  let width = 0;
  for (const own of widths) {
    starts.push(width);
    width += own;
  }

  /** `count` whole outer rows, each part's read at once. */
  const readRows = (row: number, count: number, target: Uint8Array) => {
    for (const [i, part] of parts.entries()) {
      const own = widths[i] as number;
      if (own === 0) continue;
      withPiece(count * own * size, (block) => {
        const bytes = block.subarray(0, count * own * size);
        part.read(row * own, bytes);
        for (let r = 0; r < count; r++)
          target.set(bytes.subarray(r * own * size, (r + 1) * own * size), (r * width + (starts[i] as number)) * size);
      });
    }
  };
  const read = (begin: number, target: Uint8Array) => {
    const end = begin + target.byteLength / size;
    for (let at = begin; at < end; ) {
      const row = Math.floor(at / width);
      const column = at - row * width;
      const whole = column === 0 ? Math.min(Math.floor((end - at) / width), Math.floor(PIECE_BLOCK / size / width)) : 0;
      if (whole > 1) {
        readRows(row, whole, target.subarray((at - begin) * size, (at - begin + whole * width) * size));
        at += whole * width;
        continue;
      }
      const i = partAt(starts, column);
      const within = column - (starts[i] as number);
      const count = Math.min((widths[i] as number) - within, end - at);
      (parts[i] as RangedTensor).read(
        row * (widths[i] as number) + within,
        target.subarray((at - begin) * size, (at - begin + count) * size),
      );
      at += count;
    }
  };
  const prints = parts.map((part) => part.fingerprint);
  return { dtype, shape, read, fingerprint: prints.includes(null) ? null : `join ${dim} (${prints.join(', ')})` };
}

/**
 * A tensor that must be equal to `twin`: both are read in step, and `differs` is thrown where their bytes part. Nothing of
 * the twin is read where the fingerprints already say that they are equal.
 */
export function sameTensor(tensor: RangedTensor, twin: RangedTensor, differs: () => Error): RangedTensor {
  if (tensor.dtype !== twin.dtype || String(tensor.shape) !== String(twin.shape)) throw differs();
  if (tensor.fingerprint !== null && tensor.fingerprint === twin.fingerprint) return tensor;
  return {
    ...tensor,
    read: (begin, target) => {
      tensor.read(begin, target);
      const size = sizeOfDtype(tensor.dtype);
      for (let at = 0; at < target.byteLength; at += PIECE_BLOCK) {
        const bytes = target.subarray(at, at + PIECE_BLOCK);
        withPiece(bytes.byteLength, (block) => {
          const beside = block.subarray(0, bytes.byteLength);
          twin.read(begin + at / size, beside);
          if (Buffer.compare(beside, bytes) !== 0) throw differs();
        });
      }
    },
  };
}
