/** @file What calls carry, as JSON with snake_case names plus tensors, and back. Both ends use these. */
import { type TensorData, tensorOf } from '@frame-thinker/checkpoint';
import type { Cotangents, Group, ImageSource, LogProbs, Sample, Trajectory } from '@frame-thinker/core';
import { ProtocolError } from './errors.ts';
import type { JsonObject, Tensors } from './frames.ts';
import type { BatchRow, InlineImage, WorkerBatch } from './types.ts';

/** Values under these keys are the user's own: their keys stay as they are. */
const FREE_FORM = new Set(['extraInfo', 'extra_info', 'registry']);

function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [rename(key), FREE_FORM.has(key) ? item : renameKeys(item, rename)]),
  );
}

/** Plain data with camelCase keys to snake_case. */
export function toWire(value: object): JsonObject {
  return renameKeys(value, (key) => key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)) as JsonObject;
}

/** snake_case keys to camelCase. The type is what the caller's protocol version promises. */
export function fromWire<T>(value: unknown): T {
  return renameKeys(value, (key) => key.replace(/_([a-z])/g, (_, c: string) => c.toUpperCase())) as T;
}

type NamedTensor = readonly [string, TensorData];
interface Carried {
  params: JsonObject;
  tensors: NamedTensor[];
}

/** The tensor `name` as the array type that it must have. @throws ProtocolError */
export function take<T>(tensors: Tensors, name: string, type: new (...args: never[]) => T): T {
  const data = tensors.get(name)?.data;
  if (!(data instanceof type))
    throw new ProtocolError(`tensor ${name}: expected ${type.name}, got ${data ? data.constructor.name : 'none'}`);
  return data;
}

function joined<T extends Float32Array | Int32Array | Uint8Array>(
  type: { new (length: number): T },
  parts: readonly T[],
): T {
  const out = new type(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part as never, at);
    at += part.length;
  }
  return out;
}

/** Cuts a flat array at row lengths. @throws ProtocolError when they don't add up to it. */
function cut<T extends Float32Array | Int32Array | Uint8Array>(flat: T, lengths: readonly number[], name: string): T[] {
  if (lengths.reduce((a, b) => a + b, 0) !== flat.length)
    throw new ProtocolError(`tensor ${name}: ${flat.length} values for rows of ${lengths.join(', ')}`);
  let at = 0;
  return lengths.map((length) => {
    at += length;
    return flat.subarray(at - length, at) as T;
  });
}

interface WireRow extends Omit<BatchRow, 'ids' | 'mask' | 'images'> {
  length: number;
  images: Omit<InlineImage, 'data'>[];
}

export function encodeBatch(batch: WorkerBatch): Carried {
  const rows = batch.trajectories;
  const images = rows.flatMap((row) => row.images ?? []);
  const wire = rows.map(
    ({ ids, promptLength, frames, jumps, images = [] }): WireRow => ({
      length: ids.length,
      promptLength,
      frames,
      ...(jumps ? { jumps } : {}),
      images: images.map(({ width, height, position }) => ({ width, height, position })),
    }),
  );
  const tensors: NamedTensor[] = [
    [
      'ids',
      tensorOf(
        joined(
          Int32Array,
          rows.map((row) => row.ids),
        ),
      ),
    ],
    [
      'mask',
      tensorOf(
        joined(
          Uint8Array,
          rows.map((row) => row.mask),
        ),
      ),
    ],
  ];
  if (images.length > 0)
    tensors.push([
      'images',
      tensorOf(
        joined(
          Uint8Array,
          images.map((image) => image.data),
        ),
      ),
    ]);
  return { params: toWire({ id: batch.id, trajectories: wire }), tensors };
}

export function decodeBatch(params: unknown, tensors: Tensors): WorkerBatch {
  const { id, trajectories } = fromWire<{ id: string; trajectories: WireRow[] }>(params);
  const lengths = trajectories.map((row) => row.length);
  const ids = cut(take(tensors, 'ids', Int32Array), lengths, 'ids');
  const mask = cut(take(tensors, 'mask', Uint8Array), lengths, 'mask');
  const sizes = trajectories.flatMap((row) => row.images.map(({ width, height }) => width * height * 3));
  const pixels = sizes.length > 0 ? cut(take(tensors, 'images', Uint8Array), sizes, 'images') : [];
  return {
    id,
    trajectories: trajectories.map(({ length: _, images, ...row }, i) => ({
      ...row,
      ids: ids[i]!,
      mask: mask[i]!,
      images: images.map((image) => ({ ...image, data: pixels.shift()! })),
    })),
  };
}

/** Rows of floats aligned with ids, as one flat tensor. */
export function encodeAligned(name: string, rows: readonly Float32Array[]): NamedTensor {
  return [name, tensorOf(joined(Float32Array, rows))];
}

export function decodeAligned(tensors: Tensors, name: string, lengths: readonly number[]): Float32Array[] {
  return cut(take(tensors, name, Float32Array), lengths, name);
}

export function encodeLogProbs({ logProbs, entropy, sumPiSquared }: LogProbs): NamedTensor[] {
  return [
    encodeAligned('logp', logProbs),
    encodeAligned('entropy', entropy),
    ...(sumPiSquared ? [encodeAligned('sum_pi_squared', sumPiSquared)] : []),
  ];
}

export function decodeLogProbs(tensors: Tensors, lengths: readonly number[]): LogProbs {
  return {
    logProbs: decodeAligned(tensors, 'logp', lengths),
    entropy: decodeAligned(tensors, 'entropy', lengths),
    ...(tensors.has('sum_pi_squared') ? { sumPiSquared: decodeAligned(tensors, 'sum_pi_squared', lengths) } : {}),
  };
}

export function encodeCotangents({ dLogProbs, dEntropy }: Cotangents): NamedTensor[] {
  return [encodeAligned('d_logp', dLogProbs), encodeAligned('d_entropy', dEntropy)];
}

export function decodeCotangents(tensors: Tensors, lengths: readonly number[]): Cotangents {
  return {
    dLogProbs: decodeAligned(tensors, 'd_logp', lengths),
    dEntropy: decodeAligned(tensors, 'd_entropy', lengths),
  };
}

export function encodeTrajectories(trajectories: readonly Trajectory[]): Carried {
  return {
    params: toWire({
      trajectories: trajectories.map(({ ids, mask: _, logProbs: __, ...rest }) => ({ ...rest, length: ids.length })),
    }),
    tensors: [
      [
        'ids',
        tensorOf(
          joined(
            Int32Array,
            trajectories.map((t) => t.ids),
          ),
        ),
      ],
      [
        'mask',
        tensorOf(
          joined(
            Uint8Array,
            trajectories.map((t) => t.mask),
          ),
        ),
      ],
      [
        'logp',
        tensorOf(
          joined(
            Float32Array,
            trajectories.map((t) => t.logProbs),
          ),
        ),
      ],
    ],
  };
}

export function decodeTrajectories(params: JsonObject, tensors: Tensors): Trajectory[] {
  const rows = fromWire<(Omit<Trajectory, 'ids' | 'mask' | 'logProbs'> & { length: number })[]>(params.trajectories);
  const lengths = rows.map((row) => row.length);
  const ids = cut(take(tensors, 'ids', Int32Array), lengths, 'ids');
  const mask = cut(take(tensors, 'mask', Uint8Array), lengths, 'mask');
  const logProbs = cut(take(tensors, 'logp', Float32Array), lengths, 'logp');
  return rows.map(({ length: _, ...row }, i) => ({ ...row, ids: ids[i]!, mask: mask[i]!, logProbs: logProbs[i]! }));
}

/** Images whose bytes travel as tensors: the JSON names the tensor. */
type WireImage =
  | Extract<ImageSource, { kind: 'path' | 'frame' }>
  | { kind: 'bytes'; tensor: string }
  | { kind: 'rgb'; width: number; height: number; tensor: string };

export function encodeGroups(groups: readonly Group[]): Carried {
  const tensors: NamedTensor[] = [];
  const carry = (data: Uint8Array): string => {
    tensors.push([`image.${tensors.length}`, tensorOf(data)]);
    return tensors.at(-1)![0];
  };
  const wireImage = (image: ImageSource): WireImage =>
    image.kind === 'bytes'
      ? { kind: 'bytes', tensor: carry(image.bytes) }
      : image.kind === 'rgb'
        ? { kind: 'rgb', width: image.width, height: image.height, tensor: carry(image.data) }
        : image;
  const wire = groups.map((group) => ({
    ...group,
    sample: { ...group.sample, ...(group.sample.images ? { images: group.sample.images.map(wireImage) } : {}) },
  }));
  return { params: toWire({ groups: wire }), tensors };
}

export function decodeGroups(params: JsonObject, tensors: Tensors): Group[] {
  type WireGroup = Omit<Group, 'sample'> & { sample: Omit<Sample, 'images'> & { images?: WireImage[] } };
  const source = (image: WireImage): ImageSource => {
    if (image.kind === 'bytes') return { kind: 'bytes', bytes: take(tensors, image.tensor, Uint8Array) };
    if (image.kind !== 'rgb') return image;
    return { kind: 'rgb', width: image.width, height: image.height, data: take(tensors, image.tensor, Uint8Array) };
  };
  return fromWire<WireGroup[]>(params.groups).map(({ sample: { images, ...sample }, ...group }) => ({
    ...group,
    sample: { ...sample, ...(images ? { images: images.map(source) } : {}) },
  }));
}
