/** @file Compares a written model folder with what it was written from, or with another folder. */
import { byteLengthOf, openHfFolder, type PlannedTensor, streamTensor, tensorsEqual } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';

/** Reads a folder back and compares every byte with its sources. @throws InputError naming the tensor. */
export function verifyWritten(dir: string, planned: readonly PlannedTensor[]): void {
  const folder = openHfFolder(dir);
  try {
    for (const { name, source, dtype, shape } of planned) {
      const written = folder.ranged(name);
      if (!('tensor' in source)) continue;
      const size = byteLengthOf(dtype, [1]);
      let beside = new Uint8Array(0);
      let at = 0;
      const same = () =>
        new InputError(`${dir}: tensor ${name}: reads back otherwise than it was written; check the disk`);
      if (written.dtype !== dtype || String(written.shape) !== String(shape)) throw same();
      streamTensor(source.tensor, dtype, (chunk) => {
        if (beside.byteLength < chunk.byteLength) beside = new Uint8Array(chunk.byteLength);
        const back = beside.subarray(0, chunk.byteLength);
        written.read(at / size, back);
        if (Buffer.compare(back, chunk) !== 0) throw same();
        at += chunk.byteLength;
      });
    }
  } finally {
    folder.close();
  }
}

export interface FolderComparison {
  equal: number;
  /** One line a tensor: missing, of another shape or dtype, other values. */
  differences: string[];
}

/** Compares the tensors of two model folders, bit for bit. @throws InputError when one cannot be read. */
export function compareHfFolders(ours: string, other: string): FolderComparison {
  const [a, b] = [openHfFolder(ours), openHfFolder(other)];
  try {
    const result: FolderComparison = { equal: 0, differences: [] };
    for (const name of new Set([...a.names, ...b.names])) {
      if (!a.has(name) || !b.has(name)) {
        result.differences.push(`${name}: only in ${a.has(name) ? ours : other}`);
        continue;
      }
      const [left, right] = [a.ranged(name), b.ranged(name)];
      if (left.dtype !== right.dtype || String(left.shape) !== String(right.shape))
        result.differences.push(`${name}: ${left.dtype} [${left.shape}], there ${right.dtype} [${right.shape}]`);
      else if (tensorsEqual(left, right)) result.equal++;
      else result.differences.push(`${name}: other values`);
    }
    return result;
  } finally {
    a.close();
    b.close();
  }
}
