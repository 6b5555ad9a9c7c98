/** @file Gradient sums in files: safetensors with the one tensor `gradients`, float64, flat in the order of the parameters. */
import { bytesOf, createSafetensors, openSafetensors, type SafetensorsFile } from '@frame-thinker/checkpoint';
import { ProtocolError } from './errors.ts';

const NAME = 'gradients';
/** Numbers that are read and added at a time: they stay in a core's cache. */
const CHUNK = 2 ** 14;

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

/**
 * The sums of all files added in the order given: so every worker that reads them has the same, to the last bit.
 * @throws InputError when a file is damaged; ProtocolError when one is not of this form, or not as long as the others
 */
export function readGradients(paths: readonly string[]): Float64Array {
  const files: SafetensorsFile[] = [];
  try {
    for (const path of paths) files.push(openSafetensors(path));
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
  } finally {
    for (const file of files) file.close();
  }
}
