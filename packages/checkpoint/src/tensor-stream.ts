/** @file Streams ranged tensors in pieces of bounded size, in the dtype they are to be stored in. */
import { InvariantError } from '@frame-thinker/core';
import { BFLOAT16_WASM } from './bfloat16-wasm.ts';
import {
  asFloat32,
  bytesOf,
  type Dtype,
  elementCount,
  type FloatDtype,
  fromFloat32,
  sizeOfDtype,
  viewAs,
} from './dtype.ts';
import { holdPieceBytes, withPiece } from './piece-memory.ts';
import type { RangedTensor } from './ranged-tensor.ts';

/** What this file uses of WebAssembly (Node has it; its type package leaves it to the DOM's). */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
};

interface Kernel {
  memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  /** By byte offsets; 0: all values are finite. */
  convert(from: number, to: number, count: number): number;
}

/** Bytes of a tensor that are in memory at once; at most half as many again after conversion. */
const CHUNK = 4 << 20;
const CONVERTED = CHUNK / 2;
/** Values that are converted at once where the kernel does not do it: what that makes is small and dropped at once. */
const SLICE = 1 << 14;
/** The kernel takes so many values at once. */
const LANES = 8;

/** Memory that pieces are read into and converted in, so that neither needs a copy. */
interface Workspace {
  source: Uint8Array<ArrayBuffer>;
  converted: Uint16Array<ArrayBuffer>;
  /** bfloat16 of the first `count` values of `source`, a multiple of 8; false: some are infinite, or not numbers. */
  convert(count: number): boolean;
}

let workspace: Workspace | null = null;
let busy = false;

function openWorkspace(): Workspace {
  const module = new WebAssembly.Module(Buffer.from(BFLOAT16_WASM, 'base64'));
  const { memory, convert } = new WebAssembly.Instance(module).exports as Kernel;
  memory.grow(Math.ceil((CHUNK + CONVERTED) / 65_536));
  holdPieceBytes(CHUNK + CONVERTED);
  const { buffer } = memory;
  return {
    source: new Uint8Array(buffer, 0, CHUNK),
    converted: new Uint16Array(buffer, CHUNK, CONVERTED / 2),
    convert: (count) => convert(0, CHUNK, count) === 0,
  };
}

const isFloat = (dtype: Dtype): dtype is FloatDtype => dtype === 'F32' || dtype === 'BF16' || dtype === 'F16';

/** Finite values that became infinite. */
function countOverflow(values: Float32Array, stored: Uint16Array, infinity: number): number {
  let count = 0;
  for (let i = 0; i < stored.length; i++)
    if (((stored[i] as number) & 0x7fff) === infinity && Number.isFinite(values[i])) count++;
  return count;
}

/** Converts the first `length` bytes of the workspace; the result is valid until the next piece. */
function convert(from: Dtype, length: number, to: Dtype): { bytes: Uint8Array; overflowed: number } {
  const { source, converted, convert: kernel } = workspace as Workspace;
  const bytes = source.subarray(0, length);
  if (from === to) return { bytes, overflowed: 0 };
  const data = viewAs(from, bytes);
  if (from === 'F32' && to === 'BF16') {
    source.fill(0, length, Math.min(CHUNK, Math.ceil(length / 32) * 32));
    if (kernel(Math.ceil(data.length / LANES) * LANES))
      return { bytes: bytesOf(converted.subarray(0, data.length)), overflowed: 0 };
  }
  if (!isFloat(to)) throw new InvariantError(`${from} cannot be stored as ${to}`);
  const size = sizeOfDtype(to);
  const out = bytesOf(converted).subarray(0, data.length * size);
  let overflowed = 0;
  for (let at = 0; at < data.length; at += SLICE) {
    const part = data.subarray(at, at + SLICE);
    const values = asFloat32({ dtype: from, shape: [part.length], data: part });
    if (!values) throw new InvariantError(`${from} cannot be stored as ${to}`);
    const stored = fromFloat32(to, values);
    out.set(bytesOf(stored), at * size);
    if (to !== 'F32') overflowed += countOverflow(values, stored as Uint16Array, to === 'BF16' ? 0x7f80 : 0x7c00);
  }
  return { bytes: out, overflowed };
}

/** Runs with the one workspace there is. */
function withWorkspace<T>(use: (source: Uint8Array) => T): T {
  if (busy) throw new InvariantError('streamTensor: a stream within a stream');
  busy = true;
  try {
    workspace ??= openWorkspace();
    return use(workspace.source);
  } finally {
    busy = false;
  }
}

/** Elements that are read at once. */
function stepOf({ dtype: own, shape }: RangedTensor, dtype: Dtype): number {
  const size = sizeOfDtype(own);
  const most = dtype === own ? CHUNK / size : Math.min(CHUNK / size, CONVERTED / sizeOfDtype(dtype));
  // Whole rows, of as many of the last dims as fit: a permuted or joined tensor is then read in long stretches.
  let row = 1;
  for (let dim = shape.length - 1; dim >= 0 && row * (shape[dim] as number) <= most; dim--)
    row *= Math.max(1, shape[dim] as number);
  return most - (most % row);
}

interface Stretch {
  dtype: Dtype;
  /** Elements. */
  begin: number;
  end: number;
  visit: (chunk: Uint8Array) => void;
}

function streamStretch(tensor: RangedTensor, { dtype, begin, end, visit }: Stretch): number {
  return withWorkspace((source) => {
    const size = sizeOfDtype(tensor.dtype);
    const step = stepOf(tensor, dtype);
    let overflowed = 0;
    for (let at = begin; at < end; at += step) {
      const length = Math.min(step, end - at) * size;
      tensor.read(at, source.subarray(0, length));
      const stored = convert(tensor.dtype, length, dtype);
      overflowed += stored.overflowed;
      visit(stored.bytes);
    }
    return overflowed;
  });
}

/**
 * Passes on all bytes of a tensor as `dtype`, in order. A chunk is valid only while `visit` runs.
 * @returns the number of finite values that `dtype` cannot hold.
 */
export function streamTensor(tensor: RangedTensor, dtype: Dtype, visit: (chunk: Uint8Array) => void): number {
  return streamStretch(tensor, { dtype, begin: 0, end: elementCount(tensor.shape), visit });
}

/** Chunks between two pauses: some 64 MB. */
const CHUNKS_IN_A_ROW = 16;

/** As `streamTensor`, but `pause` is awaited again and again, so that the process can do something else or give up. */
export async function streamWithPauses(
  tensor: RangedTensor,
  options: { dtype: Dtype; visit: (chunk: Uint8Array) => void; pause: () => Promise<void> },
): Promise<number> {
  const total = elementCount(tensor.shape);
  const most = CHUNKS_IN_A_ROW * stepOf(tensor, options.dtype);
  let overflowed = 0;
  for (let begin = 0; begin < total; begin += most) {
    if (begin > 0) await options.pause();
    overflowed += streamStretch(tensor, { ...options, begin, end: Math.min(total, begin + most) });
  }
  return overflowed;
}

/** Whether two tensors of one shape and dtype hold the same bytes. */
export function tensorsEqual(a: RangedTensor, b: RangedTensor): boolean {
  if (a.dtype !== b.dtype || String(a.shape) !== String(b.shape)) return false;
  if (a.fingerprint !== null && a.fingerprint === b.fingerprint) return true;
  const size = sizeOfDtype(a.dtype);
  return withPiece(Math.min(CHUNK, elementCount(a.shape) * size), (other) => {
    let at = 0;
    let equal = true;
    streamTensor(a, a.dtype, (chunk) => {
      const beside = other.subarray(0, chunk.byteLength);
      if (equal) b.read(at / size, beside);
      equal &&= Buffer.compare(chunk, beside) === 0;
      at += chunk.byteLength;
    });
    return equal;
  });
}
