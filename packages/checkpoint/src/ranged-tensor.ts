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

export interface StridedStorage {
  /** Fills `target` with bytes from `begin` on. */
  read(begin: number, target: Uint8Array): void;
  /** Tells storages of equal content apart from others; null where it is not known. */
  readonly fingerprint: string | null;
}

const isContiguous = (shape: readonly number[], stride: readonly number[]): boolean => {
  let expected = 1;
  for (let dim = shape.length - 1; dim >= 0; dim--) {
    if (shape[dim] !== 1 && stride[dim] !== expected) return false;
    expected *= shape[dim] as number;
  }
  return true;
};

/**
 * A view of a storage, as torch describes it.
 * @param view offset and strides in elements, none negative, within the storage.
 */
export function stridedTensor(
  storage: StridedStorage,
  view: { dtype: Dtype; offset: number; shape: readonly number[]; stride: readonly number[] },
): RangedTensor {
  const { dtype, offset, shape, stride } = view;
  const size = sizeOfDtype(dtype);
  const fingerprint = storage.fingerprint && `${storage.fingerprint} ${dtype} ${offset} [${shape}] [${stride}]`;
  if (elementCount(shape) === 0 || isContiguous(shape, stride))
    return {
      dtype,
      shape,
      fingerprint,
      read: (begin, target) => {
        if (target.byteLength > 0) storage.read((offset + begin) * size, target);
      },
    };
  const columns = shape.at(-1) ?? 1;
  const step = stride.at(-1) ?? 1;
  // A transposed matrix: the rows of a range lie behind one another in each column. Row by row, each would span the storage.
  if (shape.length === 2 && stride[0] === 1 && step > 1)
    return {
      dtype,
      shape,
      fingerprint,
      read: (begin, target) => {
        const end = begin + target.byteLength / size;
        const [first, last] = [Math.floor(begin / columns), Math.floor((end - 1) / columns)];
        withPiece((last - first + 1) * size, (block) => {
          for (let column = 0; column < columns; column++) {
            const from = first * columns + column < begin ? first + 1 : first;
            const to = last * columns + column < end ? last + 1 : last;
            if (to <= from) continue;
            storage.read((offset + from + column * step) * size, block.subarray(0, (to - from) * size));
            for (let row = from; row < to; row++) {
              const at = (row - from) * size;
              target.set(block.subarray(at, at + size), (row * columns + column - begin) * size);
            }
          }
        });
      },
    };
  /** Storage element of the first element of a row of the last dim. */
  const rowStart = (row: number): number => {
    let at = offset;
    for (let dim = shape.length - 2, rest = row; dim >= 0; dim--) {
      const n = shape[dim] as number;
      at += (rest % n) * (stride[dim] as number);
      rest = Math.floor(rest / n);
    }
    return at;
  };
  const perStep = Math.max(1, Math.floor(PIECE_BLOCK / size / Math.max(1, step)));
  const read = (begin: number, target: Uint8Array) => {
    const end = begin + target.byteLength / size;
    for (let at = begin; at < end; ) {
      const row = Math.floor(at / columns);
      const column = at - row * columns;
      const count = Math.min(columns - column, end - at, perStep);
      const from = rowStart(row) + column * step;
      const into = target.subarray((at - begin) * size, (at - begin + count) * size);
      if (step === 1) storage.read(from * size, into);
      else {
        const span = ((count - 1) * step + 1) * size;
        withPiece(span, (block) => {
          storage.read(from * size, block.subarray(0, span));
          for (let i = 0; i < count; i++) into.set(block.subarray(i * step * size, (i * step + 1) * size), i * size);
        });
      }
      at += count;
    }
  };
  return { dtype, shape, fingerprint, read };
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
