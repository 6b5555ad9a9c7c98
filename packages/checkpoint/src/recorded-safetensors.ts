/** @file A safetensors file whose checksums are computed while its tensors are read, so that checking costs no second reading. */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { sizeOfDtype } from './dtype.ts';
import { checkRecord, type FileRecord } from './manifest.ts';
import { withPiece } from './piece-memory.ts';
import { openForReading, readFully } from './regular-file.ts';
import { openSafetensors, type SafetensorsFile } from './safetensors-file.ts';

export interface RecordedSafetensors extends SafetensorsFile {
  /** Reads what no range touched yet and compares. @throws InputError naming the file, and the tensor where it can be told. */
  verify(): void;
}

/** Opens a file of which `record` says the size and checksums. Ranges read in order are read from the file once. */
export function openRecorded(path: string, record: FileRecord): RecordedSafetensors {
  const file = openSafetensors(path);
  const { dataStart, entries } = file.header;
  const handle = openForReading(path);
  const { size } = fstatSync(handle);
  const ordered = [...entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
  const crcs = new Map(ordered.map(({ name }) => [name, 0]));
  const hash = createHash('sha256');
  let position = 0;
  let current = 0;
  /** Adds the bytes that follow `position`. */
  const add = (bytes: Uint8Array) => {
    hash.update(bytes);
    const end = position + bytes.byteLength;
    for (; current < ordered.length; current++) {
      const entry = ordered[current]!;
      const [from, to] = [Math.max(position, dataStart + entry.begin), Math.min(end, dataStart + entry.end)];
      const before = crcs.get(entry.name) as number;
      if (to > from) crcs.set(entry.name, crc32(bytes.subarray(from - position, to - position), before));
      if (end < dataStart + entry.end) break;
    }
    position = end;
  };
  const scan = (end: number) => {
    if (end <= position) return;
    withPiece(0, (buffer) => {
      while (position < end) {
        const chunk = buffer.subarray(0, Math.min(buffer.byteLength, end - position));
        readFully(handle, chunk, position, path);
        add(chunk);
      }
    });
  };
  return {
    ...file,
    ranged: (name) => {
      const tensor = file.ranged(name);
      const { begin, dtype } = file.entry(name);
      const crc = record.tensors?.[name];
      return {
        ...tensor,
        fingerprint: crc === undefined ? null : `crc ${crc} of ${dtype} [${tensor.shape}]`,
        read: (first, target) => {
          const at = dataStart + begin + first * sizeOfDtype(dtype);
          scan(at);
          tensor.read(first, target);
          if (at + target.byteLength > position) add(target.subarray(position - at));
        },
      };
    },
    verify: () => {
      scan(size);
      checkRecord(path, record, { bytes: size, sha256: hash.digest('hex'), tensors: Object.fromEntries(crcs) });
    },
    close: () => {
      closeSync(handle);
      file.close();
    },
  };
}
