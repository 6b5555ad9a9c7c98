/** @file Writes a zip archive: what Ray unpacks as a working directory. Deflated; names in UTF-8; every time stamp the same. */
import { crc32, deflateRawSync } from 'node:zlib';

export interface ZipEntry {
  /** Path inside the archive, with slashes. */
  name: string;
  data: Uint8Array;
  /** Permissions, of which only whether it is executable counts. Default false. */
  executable?: boolean;
}

const DEFLATE = 8;
const UTF8_NAMES = 0x0800;
/** 1980-01-01, the first day of the format: equal files give equal archives. */
const DOS_DATE = 0x21;
const UNIX = 3 << 8;

/** The fields that a file's own header and its entry in the directory share. */
function commonFields({ name, data }: ZipEntry, packed: Uint8Array): Buffer {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(20, 0); // version needed: deflate
  fields.writeUInt16LE(UTF8_NAMES, 2);
  fields.writeUInt16LE(DEFLATE, 4);
  fields.writeUInt16LE(DOS_DATE, 8);
  fields.writeUInt32LE(crc32(data), 10);
  fields.writeUInt32LE(packed.byteLength, 14);
  fields.writeUInt32LE(data.byteLength, 18);
  fields.writeUInt16LE(Buffer.byteLength(name), 22);
  return fields;
}

const signature = (code: number): Buffer => Buffer.from([0x50, 0x4b, code, code + 1]);

/** An archive below 4 GiB and 65,536 files. @throws RangeError beyond */
export function writeZip(entries: readonly ZipEntry[]): Uint8Array {
  if (entries.length > 0xffff) throw new RangeError(`a zip archive holds 65535 files, not ${entries.length}`);
  const files: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const entry of entries) {
    const packed = deflateRawSync(entry.data);
    const fields = commonFields(entry, packed);
    const name = Buffer.from(entry.name);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(((entry.executable ? 0o100755 : 0o100644) << 16) >>> 0, 6);
    place.writeUInt32LE(at, 10);
    const file = [signature(3), fields, name, packed];
    directory.push(signature(1), Buffer.from([20, UNIX >> 8]), fields, place, name);
    files.push(...file);
    at += file.reduce((sum, part) => sum + part.byteLength, 0);
  }
  const directoryBytes = directory.reduce((sum, part) => sum + part.byteLength, 0);
  if (at + directoryBytes > 0xffff_ffff) throw new RangeError(`a zip archive of ${at} bytes: 4 GiB is the most`);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(entries.length, 4);
  end.writeUInt16LE(entries.length, 6);
  end.writeUInt32LE(directoryBytes, 8);
  end.writeUInt32LE(at, 12);
  return Buffer.concat([...files, ...directory, signature(5), end]);
}
