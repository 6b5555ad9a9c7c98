/**
 * @file The safetensors format in memory: u64 LE header length, JSON header, data. Tensors lie without gaps in the order
 * of falling element size, so that each is aligned to its own size. https://github.com/huggingface/safetensors
 */
import { InputError, InvariantError, messageOf } from '@frame-thinker/core';
import { bytesOf, type Dtype, elementCount, isDtype, sizeOfDtype, type TensorData, viewAs } from './dtype.ts';

/** Where a tensor lies: bytes [begin, end) counted from the end of the header. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** By name, in the order of the data. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** File offset of the first data byte. */
  readonly dataStart: number;
  /** Bytes of the whole file. */
  readonly size: number;
}

export type Metadata = Readonly<Record<string, string>>;

/** The limit that the reference implementation sets too. */
const MAX_HEADER = 100_000_000;

export function byteLengthOf(dtype: Dtype, shape: readonly number[]): number {
  return elementCount(shape) * sizeOfDtype(dtype);
}

/** Lays tensors out and encodes the header (padded with spaces to 8 bytes). Equal element sizes keep their order. */
export function layoutSafetensors(
  specs: Iterable<{ name: string; dtype: Dtype; shape: readonly number[] }>,
  metadata: Metadata = {},
): { header: Uint8Array; entries: TensorEntry[] } {
  const sorted = [...specs].sort((a, b) => sizeOfDtype(b.dtype) - sizeOfDtype(a.dtype));
  const json: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) json.push(['__metadata__', metadata]);
  let at = 0;
  const seen = new Set(['__metadata__']);
  const entries = sorted.map(({ name, dtype, shape }) => {
    if (seen.has(name)) throw new InvariantError(`safetensors: tensor name ${JSON.stringify(name)} is taken`);
    seen.add(name);
    const entry = { name, dtype, shape: [...shape], begin: at, end: at + byteLengthOf(dtype, shape) };
    at = entry.end;
    json.push([name, { dtype, shape: entry.shape, data_offsets: [entry.begin, entry.end] }]);
    return entry;
  });
  // Written member by member: an object would move names that look like integers to the front.
  const members = json.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const text = Buffer.from(`{${members.join(',')}}`);
  const length = Math.ceil(text.length / 8) * 8;
  const header = Buffer.alloc(8 + length, 0x20);
  header.writeBigUInt64LE(BigInt(length));
  text.copy(header, 8);
  return { header, entries };
}

/**
 * Encodes tensors as chunks (the header, then each tensor's own bytes, not copied) that make one safetensors blob.
 * @throws InvariantError on a name used twice or data that does not fit its shape.
 */
export function encodeSafetensors(
  tensors: Iterable<readonly [string, TensorData]>,
  metadata: Metadata = {},
): Uint8Array[] {
  const byName = new Map<string, TensorData>();
  const specs: { name: string; dtype: Dtype; shape: readonly number[] }[] = [];
  for (const [name, tensor] of tensors) {
    if (tensor.data.byteLength !== byteLengthOf(tensor.dtype, tensor.shape))
      throw new InvariantError(
        `safetensors: ${name} has ${tensor.data.byteLength} bytes, but ${tensor.dtype} [${tensor.shape}] needs ${byteLengthOf(tensor.dtype, tensor.shape)}`,
      );
    byName.set(name, tensor);
    specs.push({ name, dtype: tensor.dtype, shape: tensor.shape });
  }
  const { header, entries } = layoutSafetensors(specs, metadata);
  return [header, ...entries.map((entry) => bytesOf(byName.get(entry.name)!.data))];
}

/** Bytes of the header's JSON, from the first 8 bytes of a file of `size` bytes. */
export function headerLength(first: Uint8Array, size: number, source: string): number {
  if (size < 8 || first.byteLength < 8)
    throw new InputError(`${source}: not a safetensors file: ${size} bytes are too few`);
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER) || length < 2n)
    throw new InputError(`${source}: not a safetensors file: a header of ${length} bytes is named`);
  if (8 + Number(length) > size)
    throw new InputError(`${source}: truncated: a header of ${length} bytes is named, the file has ${size} bytes`);
  return Number(length);
}

/**
 * Parses and checks a header: every tensor of a known dtype, as many bytes as its shape needs, no gap, no overlap, and the
 * data end where the file ends.
 * @throws InputError naming the source and the tensor.
 */
export function parseHeader(jsonBytes: Uint8Array, size: number, source: string): SafetensorsHeader {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(jsonBytes));
  } catch (error) {
    throw new InputError(
      `${source}: damaged: the safetensors header is not JSON (${messageOf(error).replace(/\s+/g, ' ')})`,
    );
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new InputError(`${source}: damaged: the safetensors header is not an object`);
  const dataStart = 8 + jsonBytes.byteLength;
  let metadata: Record<string, string> = {};
  const entries: TensorEntry[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') metadata = parseMetadata(value, source);
    else entries.push(parseEntry(name, value, source));
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const entry of entries) {
    if (entry.begin !== at)
      throw new InputError(
        `${source}: tensor ${entry.name}: ${entry.begin < at ? 'overlaps the one before it' : 'a gap lies before it'} (starts at ${entry.begin}, expected ${at})`,
      );
    at = entry.end;
    if (dataStart + at > size)
      throw new InputError(
        `${source}: tensor ${entry.name}: truncated: its data end at byte ${dataStart + at}, the file has ${size} bytes`,
      );
  }
  if (dataStart + at !== size)
    throw new InputError(`${source}: damaged: ${size - dataStart - at} bytes follow the last tensor`);
  return { entries: new Map(entries.map((entry) => [entry.name, entry])), metadata, dataStart, size };
}

function parseMetadata(value: unknown, source: string): Record<string, string> {
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : [['', 0]];
  if (entries.some(([, text]) => typeof text !== 'string'))
    throw new InputError(`${source}: damaged: __metadata__ must map names to strings`);
  return value as Record<string, string>;
}

function parseEntry(name: string, value: unknown, source: string): TensorEntry {
  const fail = (what: string) => new InputError(`${source}: tensor ${name}: ${what}`);
  if (typeof value !== 'object' || value === null) throw fail('damaged header entry');
  const { dtype, shape, data_offsets } = value as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  const isSize = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!isDtype(dtype)) throw fail(`dtype ${JSON.stringify(dtype)} is not supported`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw fail(`damaged shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(data_offsets) || data_offsets.length !== 2 || !data_offsets.every(isSize))
    throw fail(`damaged data_offsets ${JSON.stringify(data_offsets)}`);
  const [begin, end] = data_offsets as [number, number];
  if (end - begin !== byteLengthOf(dtype, shape))
    throw fail(`${dtype} [${shape}] needs ${byteLengthOf(dtype, shape)} bytes, the header gives it ${end - begin}`);
  return { name, dtype, shape, begin, end };
}

/**
 * Decodes a safetensors blob. Tensors are views into `bytes` where it is aligned, copies elsewhere.
 * @param source names the blob in errors.
 */
export function decodeSafetensors(
  bytes: Uint8Array,
  source = 'safetensors blob',
): { tensors: Map<string, TensorData>; metadata: Metadata } {
  const length = headerLength(bytes, bytes.byteLength, source);
  const header = parseHeader(bytes.subarray(8, 8 + length), bytes.byteLength, source);
  const tensors = new Map<string, TensorData>();
  for (const { name, dtype, shape, begin, end } of header.entries.values()) {
    const part = bytes.subarray(header.dataStart + begin, header.dataStart + end);
    tensors.set(name, { dtype, shape, data: viewAs(dtype, part) });
  }
  return { tensors, metadata: header.metadata };
}
