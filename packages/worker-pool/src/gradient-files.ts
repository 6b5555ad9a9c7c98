/** @file Gradient sums in files: safetensors with the one tensor `gradients`, float64, flat in the order of the parameters, or a part of it. */
import {
  bytesOf,
  createSafetensors,
  openSafetensors,
  type SafetensorsFile,
  shardRange,
} from '@frame-thinker/checkpoint';
import { ProtocolError } from './errors.ts';

const NAME = 'gradients';
/** Numbers that are read and added at a time: they stay in a core's cache. */
const CHUNK = 2 ** 14;

/** @throws InputError when the disk is full or the place is not writable */
export function writeGradients(path: string, gradients: Float64Array): void {
  const file = createSafetensors({
    path,
    tensors: [{ name: NAME, dtype: 'F64', shape: [gradients.length] }],
    sync: false,
  });
  try {
    file.write(NAME, bytesOf(gradients));
    file.finish();
  } catch (error) {
    file.abort();
    throw error;
  }
}

/** Cuts the sums into as many parts as there are paths, as even as shards of rows are (the last ones may be empty). */
export function writeGradientParts(paths: readonly string[], gradients: Float64Array): void {
  for (const [part, path] of paths.entries()) {
    const { start, end } = shardRange(gradients.length, paths.length, part);
    writeGradients(path, gradients.subarray(start, end));
  }
}

function lengthOf(file: SafetensorsFile): number {
  const { dtype, shape } = file.entry(NAME);
  if (dtype !== 'F64' || shape.length !== 1)
    throw new ProtocolError(`${file.path}: ${NAME} is ${dtype} [${shape}], must be flat F64`);
  return shape[0]!;
}

function withFiles<T>(paths: readonly string[], use: (files: SafetensorsFile[]) => T): T {
  const files: SafetensorsFile[] = [];
  try {
    for (const path of paths) files.push(openSafetensors(path));
    return use(files);
  } finally {
    for (const file of files) file.close();
  }
}

/**
 * The numbers of all files added in the order given.
 * @throws InputError when a file is damaged; ProtocolError when one is not of this form, or not as long as the others
 */
export function addGradients(paths: readonly string[]): Float64Array {
  return withFiles(paths, (files) => {
    const lengths = files.map(lengthOf);
    const [length] = lengths;
    if (length === undefined || lengths.some((other) => other !== length))
      throw new ProtocolError(`gradient sums of ${lengths.join(', ') || 'no'} numbers can't be added`);
    const [first, ...others] = files.map((file) => file.ranged(NAME));
    const sum = new Float64Array(length);
    first!.read(0, bytesOf(sum));
    const chunk = new Float64Array(Math.min(CHUNK, length));
    for (let at = 0; at < length; at += CHUNK) {
      const part = chunk.subarray(0, length - at);
      const target = sum.subarray(at, at + part.length);
      for (const other of others) {
        other.read(at, bytesOf(part));
        for (let i = 0; i < part.length; i++) target[i]! += part[i]!;
      }
    }
    return sum;
  });
}

/** The numbers of all files, one file's behind the other's. @throws as addGradients */
export function readGradients(paths: readonly string[]): Float64Array {
  return withFiles(paths, (files) => {
    const lengths = files.map(lengthOf);
    const gradients = new Float64Array(lengths.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const [i, file] of files.entries()) {
      file.ranged(NAME).read(0, bytesOf(gradients.subarray(at, at + lengths[i]!)));
      at += lengths[i]!;
    }
    return gradients;
  });
}
