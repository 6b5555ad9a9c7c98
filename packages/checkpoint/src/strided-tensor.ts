/** @file Views of a storage by offset and strides, as torch describes them, read by ranges: no byte more than a few times. */
import { type Dtype, elementCount, sizeOfDtype } from './dtype.ts';
import { PIECE_BLOCK, withPiece } from './piece-memory.ts';
import type { RangedTensor } from './ranged-tensor.ts';

export interface StridedStorage {
  /** Fills `target` with bytes from `begin` on. */
  read(begin: number, target: Uint8Array): void;
  /** Tells storages of equal content apart from others; null where it is not known. */
  readonly fingerprint: string | null;
}

/** What lies between the elements of a view is read with them if all together is at most so many times as much, */
export const MOST_READ = 4;
/** and if a gap has no more bytes: one read of them is faster than two reads. */
const MOST_GAP = 1024;

/** A dim of a box of elements: `stride` elements apart in the storage, `out` apart in what is read. */
interface Dim {
  extent: number;
  stride: number;
  out: number;
}

interface Box {
  /** Element of the storage. */
  offset: number;
  dims: Dim[];
  count: number;
}

interface View {
  dtype: Dtype;
  offset: number;
  shape: readonly number[];
  stride: readonly number[];
}

const isContiguous = (shape: readonly number[], stride: readonly number[]): boolean => {
  let expected = 1;
  for (let dim = shape.length - 1; dim >= 0; dim--) {
    if (shape[dim] !== 1 && stride[dim] !== expected) return false;
    expected *= shape[dim] as number;
  }
  return true;
};

/** Cuts elements [begin, end), row-major, into boxes, in order; fewer than two for each dim. */
function boxesOf({ offset, shape, stride }: View, begin: number, end: number): Box[] {
  /** Elements of an index of each dim. */
  const inner = shape.map((_, dim) => elementCount(shape.slice(dim + 1)));
  const boxes: Box[] = [];
  const add = (dim: number, { at, extent }: { at: number; extent: number }) => {
    const dims = shape
      .slice(dim)
      .map((n, i) => ({ extent: n, stride: stride[dim + i] as number, out: inner[dim + i] as number }));
    (dims[0] as Dim).extent = extent;
    boxes.push({ offset: at, dims: dims.filter((d) => d.extent > 1), count: extent * (inner[dim] as number) });
  };
  const split = (dim: number, at: number, range: { from: number; to: number }) => {
    const row = inner[dim] as number;
    const step = stride[dim] as number;
    let index = Math.floor(range.from / row);
    const within = range.from - index * row;
    const whole = Math.floor(range.to / row);
    if (within > 0) {
      split(dim + 1, at + index * step, { from: within, to: Math.min(row, range.to - index * row) });
      index++;
    }
    if (whole > index) add(dim, { at: at + index * step, extent: whole - index });
    if (whole >= index && range.to > whole * row)
      split(dim + 1, at + whole * step, { from: 0, to: range.to - whole * row });
  };
  split(0, offset, { from: begin, to: end });
  return boxes;
}

/** Dims in the storage's order; neighbours that lie like one are one. */
function sortDims(dims: readonly Dim[]): Dim[] {
  const sorted: Dim[] = [];
  for (const dim of [...dims].sort((a, b) => a.stride - b.stride || a.out - b.out)) {
    const last = sorted.at(-1);
    if (last && dim.stride === last.stride * last.extent && dim.out === last.out * last.extent)
      last.extent *= dim.extent;
    else sorted.push({ ...dim });
  }
  return sorted;
}

/** Puts the elements of a block, which begins with the first, to their places. Offsets in elements. */
function scatter(block: Uint8Array, target: Uint8Array, dims: readonly Dim[], size: number): void {
  const visit = (level: number, from: number, to: number): void => {
    const dim = dims[level];
    if (!dim) {
      for (let b = 0; b < size; b++) target[to * size + b] = block[from * size + b] as number;
      return;
    }
    const { extent, stride, out } = dim;
    if (level > 0) for (let i = 0; i < extent; i++) visit(level - 1, from + i * stride, to + i * out);
    else if (stride === 1 && out === 1) target.set(block.subarray(from * size, (from + extent) * size), to * size);
    else
      for (let i = 0, read = from * size, write = to * size; i < extent; i++) {
        for (let b = 0; b < size; b++) target[write + b] = block[read + b] as number;
        read += stride * size;
        write += out * size;
      }
  };
  visit(dims.length - 1, 0, 0);
}

/** Reads a box: blocks of the storage that are mostly its elements, one after the other. */
function readBox(storage: StridedStorage, box: Box, target: Uint8Array, size: number): void {
  const limit = PIECE_BLOCK / size;
  const dims = sortDims(box.dims);
  /** Dims of a block, elements from its first to its last, and those of them that are the view's. */
  const within: Dim[] = [];
  let [span, used] = [1, 1];
  let extent = 1;
  while (dims[0] && dims[0].stride <= MOST_READ * used && (dims[0].stride - span) * size <= MOST_GAP) {
    const dim = dims[0];
    const most = dim.stride === 0 ? dim.extent : 1 + Math.floor((limit - span) / dim.stride);
    extent = Math.min(dim.extent, most);
    if (extent < dim.extent) break;
    dims.shift();
    within.push(dim);
    span += (extent - 1) * dim.stride;
    used *= extent;
    extent = 1;
  }
  /** Of a dim that does not fit a block, so many are read at once. */
  const parted = extent > 1 ? (dims.shift() as Dim) : null;
  const readBlock = (from: number, to: number, count: number) => {
    const own = parted ? [...within, { ...parted, extent: count }] : within;
    const length = (span + (parted ? (count - 1) * parted.stride : 0)) * size;
    const place = target.subarray(to * size);
    const [only] = own;
    if (own.length === 0 || (own.length === 1 && only?.stride === 1 && only.out === 1))
      storage.read(from * size, place.subarray(0, length));
    else
      withPiece(length, (piece) => {
        const block = piece.subarray(0, length);
        storage.read(from * size, block);
        scatter(block, place, own, size);
      });
  };
  const visit = (level: number, from: number, to: number): void => {
    const dim = dims[level];
    if (dim) for (let i = 0; i < dim.extent; i++) visit(level - 1, from + i * dim.stride, to + i * dim.out);
    else if (parted)
      for (let i = 0; i < parted.extent; i += extent)
        readBlock(from + i * parted.stride, to + i * parted.out, Math.min(extent, parted.extent - i));
    else readBlock(from, to, 1);
  };
  visit(dims.length - 1, box.offset, 0);
}

/**
 * A view of a storage. Whatever its strides are, a range of n elements reads no more than `MOST_READ` · n of the storage.
 * @param view offset and strides in elements, none negative, within the storage.
 */
export function stridedTensor(storage: StridedStorage, view: View): RangedTensor {
  const { dtype, offset, shape, stride } = view;
  const size = sizeOfDtype(dtype);
  // Joined, it is one string in memory and not a chain of a dozen.
  const fingerprint =
    storage.fingerprint && [storage.fingerprint, dtype, offset, `[${shape}]`, `[${stride}]`].join(' ');
  const dense = elementCount(shape) === 0 || isContiguous(shape, stride);
  const read = (begin: number, target: Uint8Array) => {
    if (target.byteLength === 0) return;
    if (dense) return storage.read((offset + begin) * size, target);
    let at = 0;
    for (const box of boxesOf(view, begin, begin + target.byteLength / size)) {
      readBox(storage, box, target.subarray(at, at + box.count * size), size);
      at += box.count * size;
    }
  };
  return { dtype, shape, fingerprint, read };
}
