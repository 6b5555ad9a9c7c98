/** @file Gradient sums in files: safetensors with the one tensor `gradients`, float64, flat in the order of the parameters. */
import { bytesOf, createSafetensors, openSafetensors, type SafetensorsFile } from '@frame-thinker/checkpoint';
import { ProtocolError } from './errors.ts';

const NAME = 'gradients';
/** Numbers that are added at a time: the sums of a large model need no memory of their own. */
const CHUNK = 2 ** 17;

const specOf = (length: number) => [{ name: NAME, dtype: 'F64', shape: [length] }] as const;

export function writeGradients(path: string, gradients: Float64Array): void {
  const file = createSafetensors({ path, tensors: specOf(gradients.length), sync: false });
  file.write(NAME, bytesOf(gradients));
  file.finish();
}

function lengthOf(file: SafetensorsFile): number {
  const { dtype, shape } = file.entry(NAME);
  if (dtype !== 'F64' || shape.length !== 1)
    throw new ProtocolError(`${file.path}: ${NAME} is ${dtype} [${shape}], must be flat F64`);
  return shape[0]!;
}

/** @throws InputError when the file is damaged; ProtocolError when it is not of this form */
export function readGradients(path: string): Float64Array {
  const file = openSafetensors(path);
  try {
    const gradients = new Float64Array(lengthOf(file));
    file.readInto(NAME, bytesOf(gradients));
    return gradients;
  } finally {
    file.close();
  }
}

/** Adds the sums of all files in the order given. @throws ProtocolError when they are not of one length */
export function addGradientFiles(paths: readonly string[], target: string): void {
  const files: SafetensorsFile[] = [];
  try {
    for (const path of paths) files.push(openSafetensors(path));
    const lengths = files.map(lengthOf);
    const [length = 0] = lengths;
    if (lengths.some((other) => other !== length))
      throw new ProtocolError(`gradient sums of ${lengths.join(', ')} numbers can't be added`);
    const parts = files.map((file) => file.ranged(NAME));
    const total = createSafetensors({ path: target, tensors: specOf(length), sync: false });
    try {
      for (let at = 0; at < length; at += CHUNK) {
        const [sum, ...others] = parts.map((part) => {
          const chunk = new Float64Array(Math.min(CHUNK, length - at));
          part.read(at, bytesOf(chunk));
          return chunk;
        });
        for (const other of others) for (let i = 0; i < other.length; i++) sum![i]! += other[i]!;
        total.write(NAME, bytesOf(sum!));
      }
      total.finish();
    } catch (error) {
      total.abort();
      throw error;
    }
  } finally {
    for (const file of files) file.close();
  }
}
