/** @file Raw rows of data files: parquet, JSON, JSONL. */
import { existsSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import * as zlib from 'node:zlib';
import { InputError, messageOf } from '@frame-thinker/core';
import type { Compressors } from 'hyparquet';

/** A row as it stands in its file, or why it cannot be read. */
export interface RawRow {
  /** `file:line`, or `file: row i` (from 0). */
  where: string;
  value?: unknown;
  /** What the parser said of it. */
  notJson?: string;
}

/** A row that cannot be used. */
export class RowError extends InputError {
  override name = 'RowError';
  /** What is wrong, in the words by which such rows are counted; the message says more. */
  readonly reason: string;
  constructor(reason: string, detail?: string) {
    super(detail ?? reason);
    this.reason = reason;
  }
}

type Inflate = (bytes: Uint8Array) => Uint8Array;
// Node has it from 22.15 on.
const { zstdDecompressSync } = zlib as { zstdDecompressSync?: Inflate };

const COMPRESSORS: Compressors = {
  GZIP: (bytes) => zlib.gunzipSync(bytes),
  BROTLI: (bytes) => zlib.brotliDecompressSync(bytes),
  ...(zstdDecompressSync === undefined ? {} : { ZSTD: (bytes) => zstdDecompressSync(bytes) }),
};

/** Whole numbers of parquet are bigints. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value) || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

/** A row group at a time: what is decoded but not yet asked for stays small. */
async function* parquetRows(path: string): AsyncGenerator<RawRow> {
  // Loaded where there is a parquet file: its modules would be a part of every start.
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await import('hyparquet');
  let row = 0;
  try {
    const file = await asyncBufferFromFile(path);
    const metadata = await parquetMetadataAsync(file);
    for (const group of metadata.row_groups) {
      const rowEnd = row + Number(group.num_rows);
      const options = { file, metadata, compressors: COMPRESSORS, rowStart: row, rowEnd, utf8: false };
      for (const value of await parquetReadObjects(options))
        yield { where: `${path}: row ${row++}`, value: plain(value) };
    }
  } catch (error) {
    throw new InputError(`${path}: not a readable parquet file, from row ${row} on (${messageOf(error)})`);
  }
}

function* jsonLines(path: string, text: string): Generator<RawRow> {
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const where = `${path}:${i + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      yield { where, notJson: messageOf(error) };
      continue;
    }
    yield { where, value };
  }
}

function* jsonList(path: string, text: string): Generator<RawRow> {
  let whole: unknown;
  try {
    whole = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: not JSON (${messageOf(error)})`);
  }
  if (!Array.isArray(whole)) throw new InputError(`${path}: expected a list of rows`);
  for (const [i, value] of whole.entries()) yield { where: `${path}: row ${i}`, value };
}

/**
 * The rows of one file, in order.
 * @throws InputError when the file is missing, of another kind, or damaged as a whole.
 */
export async function* rawRows(path: string): AsyncGenerator<RawRow> {
  if (!existsSync(path)) throw new InputError(`${path}: no such data file`);
  switch (extname(path)) {
    case '.parquet':
      yield* parquetRows(path);
      break;
    case '.jsonl':
      yield* jsonLines(path, readFileSync(path, 'utf8'));
      break;
    case '.json':
      yield* jsonList(path, readFileSync(path, 'utf8'));
      break;
    default:
      throw new InputError(`${path}: data files end in .parquet, .json or .jsonl`);
  }
}

/** A row that was left out. */
export interface LeftOut {
  where: string;
  reason: string;
  /** What is wrong with this one. */
  message: string;
}

/** One line a reason: how many rows, and the first of them. */
export function countReasons(rows: readonly LeftOut[]): string[] {
  const byReason = new Map<string, LeftOut[]>();
  for (const row of rows) byReason.set(row.reason, [...(byReason.get(row.reason) ?? []), row]);
  return [...byReason].map(
    ([reason, same]) => `${same.length} x ${reason} (first: ${same[0]!.where}: ${same[0]!.message})`,
  );
}
