/** @file Writes the weight files of a model folder; what lies woven in one tensor is read once for all files it goes to. */
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { elementCount, sizeOfDtype } from './dtype.ts';
import type { PlannedFile, PlannedTensor } from './hf-folder-plan.ts';
import { createSafetensors, type SafetensorsWriter } from './safetensors-file.ts';
import { readSource } from './tensor-source.ts';
import { streamWithPauses } from './tensor-stream.ts';
import { isWoven, type Weave, wovenPieces } from './woven-tensor.ts';

/** Bytes [begin, end) of a written tensor and their CRC-32. */
export interface WrittenRange {
  begin: number;
  end: number;
  crc: number;
}

export interface WrittenWeights {
  tensors: number;
  /** Bytes of tensor data. */
  bytes: number;
  /** Finite values that became infinite in the written dtype. */
  overflowed: number;
  /** By tensor, where they were asked for. */
  ranges: Map<string, WrittenRange[]>;
}

export interface WriteWeightsOptions {
  onTensor?: (name: string, done: number, total: number) => void;
  /** After each piece: bytes of tensor data written so far, and in all. */
  onBytes?: (bytes: number, total: number) => void;
  /** Whether the CRC-32 of what was written is computed, by tensor. */
  checksums?: boolean;
  /** Ends it: the signal's reason is thrown. */
  signal?: AbortSignal;
}

/** Bytes after which the disk is set to work. */
const FLUSH_EVERY = 64e6;

interface Member {
  tensor: PlannedTensor;
  /** Strands of the weave, and the byte of the tensor at which each begins. */
  starts: Map<number, number>;
}

/** All tensors of a weave and where its strands go; null where they would not take each strand once. */
function membersOf(weave: Weave, planned: readonly PlannedTensor[]): Member[] | null {
  const row = elementCount(weave.source.shape.slice(1));
  const turns = (weave.source.shape[0] as number) / weave.rows.reduce((sum, n) => sum + n, 0);
  const seen: number[] = [];
  const members = planned.flatMap((tensor) => {
    const woven = 'tensor' in tensor.source && isWoven(tensor.source.tensor) ? tensor.source.tensor : null;
    if (woven?.weave !== weave) return [];
    const starts = new Map<number, number>();
    let at = 0;
    for (const strand of woven.strands) {
      starts.set(strand, at);
      seen.push(strand);
      at += turns * (weave.rows[strand] as number) * row * sizeOfDtype(tensor.dtype);
    }
    return [{ tensor, starts }];
  });
  return String(seen.sort((a, b) => a - b)) === String([...weave.rows.keys()]) ? members : null;
}

/** Writes all files below `dir`, in order; several are open only while a weave goes to them. */
export async function writeWeights(
  dir: string,
  files: readonly PlannedFile[],
  options: WriteWeightsOptions,
): Promise<WrittenWeights> {
  const planned = files.flatMap((file) => file.tensors);
  const total = planned.reduce((sum, { bytes }) => sum + bytes, 0);
  const result: WrittenWeights = { tensors: 0, bytes: 0, overflowed: 0, ranges: new Map() };
  const fileOf = new Map(files.flatMap((file) => file.tensors.map((tensor) => [tensor, file] as const)));
  const left = new Map(files.map((file) => [file, file.tensors.length]));
  const writers = new Map<PlannedFile, SafetensorsWriter>();
  const done = new Set<PlannedTensor>();

  let flushing: Promise<void> | null = null;
  let flushError: unknown;
  let flushed = 0;

  const open = (file: PlannedFile): SafetensorsWriter => {
    const path = join(dir, file.name);
    const writer =
      writers.get(file) ?? createSafetensors({ path, tensors: file.tensors, metadata: { format: 'pt' }, sync: false });
    writers.set(file, writer);
    return writer;
  };
  const close = async (file: PlannedFile) => {
    await flushing;
    if (flushError) throw flushError;
    open(file).finish();
    writers.delete(file);
  };
  const put = (tensor: PlannedTensor, bytes: Uint8Array, at: number) => {
    open(fileOf.get(tensor) as PlannedFile).write(tensor.name, bytes, at);
    if (options.checksums) {
      const ranges = result.ranges.get(tensor.name) ?? [];
      result.ranges.set(tensor.name, ranges);
      const before = ranges.find((range) => range.end === at);
      if (before) Object.assign(before, { end: at + bytes.byteLength, crc: crc32(bytes, before.crc) });
      else ranges.push({ begin: at, end: at + bytes.byteLength, crc: crc32(bytes) });
    }
    result.bytes += bytes.byteLength;
    options.onBytes?.(result.bytes, total);
  };
  /** The disk works on what is written while more is read, so that the sync at the end finds little to do. */
  const flushNow = (file: PlannedFile) => {
    if (flushing || result.bytes - flushed < FLUSH_EVERY) return;
    flushed = result.bytes;
    const settle = (error?: unknown) => {
      flushing = null;
      flushError ??= error;
    };
    flushing = open(file)
      .flush()
      .then(() => settle(), settle);
  };
  /** Signals arrive while the thread waits. */
  const pause = async () => {
    await turn();
    options.signal?.throwIfAborted();
  };
  const finish = async (tensor: PlannedTensor) => {
    done.add(tensor);
    result.tensors++;
    options.onTensor?.(tensor.name, result.tensors, planned.length);
    const file = fileOf.get(tensor) as PlannedFile;
    const count = (left.get(file) as number) - 1;
    left.set(file, count);
    if (count === 0) await close(file);
    else flushNow(file);
    await pause();
  };

  const writeWeave = async (weave: Weave, members: readonly Member[]) => {
    const [{ tensor: first }] = members as [Member];
    const size = sizeOfDtype(first.dtype);
    let at = 0;
    const visit = (chunk: Uint8Array) => {
      const end = at + chunk.byteLength / size;
      for (const piece of wovenPieces(weave, at, end)) {
        const { tensor, starts } = members.find((member) => member.starts.has(piece.strand)) as Member;
        const bytes = chunk.subarray((piece.begin - at) * size, (piece.end - at) * size);
        put(tensor, bytes, (starts.get(piece.strand) as number) + piece.at * size);
      }
      at = end;
    };
    result.overflowed += await streamWithPauses(weave.source, { dtype: first.dtype, visit, pause });
    for (const { tensor } of members) await finish(tensor);
  };
  const writeOne = async (tensor: PlannedTensor) => {
    const { source, dtype } = tensor;
    let at = 0;
    if ('tensor' in source) {
      const visit = (chunk: Uint8Array) => {
        put(tensor, chunk, at);
        at += chunk.byteLength;
      };
      result.overflowed += await streamWithPauses(source.tensor, { dtype, visit, pause });
    } else {
      const { bytes, overflowed } = await readSource(source, dtype);
      put(tensor, bytes, 0);
      result.overflowed += overflowed;
    }
    await finish(tensor);
  };

  try {
    for (const file of files) if (file.tensors.length === 0) await close(file);
    for (const tensor of planned) {
      if (done.has(tensor)) continue;
      const { source } = tensor;
      const weave = 'tensor' in source && isWoven(source.tensor) ? source.tensor.weave : null;
      const members = weave && membersOf(weave, planned);
      if (weave && members) await writeWeave(weave, members);
      else await writeOne(tensor);
    }
    return result;
  } catch (error) {
    await flushing;
    for (const writer of writers.values()) writer.abort();
    throw error;
  }
}
