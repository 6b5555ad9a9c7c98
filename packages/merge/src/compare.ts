/** @file Compares a written model folder with what it was written from, or with another folder. */
import { setImmediate as turn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import {
  openHfFolder,
  PIECE_BLOCK,
  type PlannedTensor,
  sizeOfDtype,
  tensorsEqual,
  type WrittenRange,
  withPiece,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';

/** Reads a folder back and compares the CRC-32 of all tensors with those of what was written. @throws InputError naming the tensor. */
export async function verifyWritten(
  dir: string,
  options: {
    planned: readonly PlannedTensor[];
    ranges: ReadonlyMap<string, readonly WrittenRange[]>;
    signal: AbortSignal | undefined;
  },
): Promise<void> {
  const { planned, ranges, signal } = options;
  const folder = openHfFolder(dir);
  try {
    for (const { name, dtype, shape, bytes } of planned) {
      const fail = () =>
        new InputError(`${dir}: tensor ${name}: reads back otherwise than it was written; check the disk`);
      const back = folder.ranged(name);
      const written = ranges.get(name) ?? [];
      const covered = written.reduce((sum, range) => sum + range.end - range.begin, 0);
      if (back.dtype !== dtype || String(back.shape) !== String(shape) || covered !== bytes) throw fail();
      const size = sizeOfDtype(dtype);
      for (const { begin, end, crc } of written) {
        let found = 0;
        withPiece(0, (buffer) => {
          for (let at = begin; at < end; at += PIECE_BLOCK) {
            const piece = buffer.subarray(0, Math.min(PIECE_BLOCK, end - at));
            back.read(at / size, piece);
            found = crc32(piece, found);
          }
        });
        if (found !== crc) throw fail();
        await turn();
        signal?.throwIfAborted();
      }
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
