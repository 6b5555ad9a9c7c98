/** @file What torch.save writes for a tensor, a DTensor or a ShardedTensor, understood as data. */
import { InputError } from '@frame-thinker/core';
import { attributeOf, isKind, type PickleValue } from '@frame-thinker/pickle';
import { elementCount, sizeOfDtype, viewAs } from './dtype.ts';
import type { RangedTensor } from './ranged-tensor.ts';
import { stridedTensor } from './strided-tensor.ts';
import type { TorchArchive } from './torch-archive.ts';
import {
  DTENSOR,
  PARAMETER,
  REBUILD_FROM_TYPE,
  REBUILD_PARAMETER,
  REBUILD_TENSOR,
  REBUILD_WRAPPER,
  REPLICATE,
  SHARD,
  SHARDED_TENSOR,
  SIZE,
  STORAGE_DTYPES,
  TENSOR,
  TORCH_DTYPES,
} from './torch-globals.ts';

/** A mesh of ranks, and this file's place in it as far as the file says. */
export interface DeviceMesh {
  readonly shape: readonly number[];
  /** Global rank at each place, row-major. */
  readonly ranks: readonly number[] | null;
  readonly coordinate: readonly number[] | null;
  readonly rank: number | null;
}

export type Placement = { readonly kind: 'replicate' } | { readonly kind: 'shard'; readonly dim: number };

/** The part of a tensor that one file holds. */
export interface TorchTensor {
  /** The values in this file. */
  readonly local: RangedTensor;
  /** How it is cut: not at all, over a mesh, or as boxes of the whole shape. */
  readonly cut:
    | { readonly kind: 'none' }
    | {
        readonly kind: 'mesh';
        readonly shape: readonly number[];
        readonly mesh: DeviceMesh;
        readonly placements: readonly Placement[];
      }
    | { readonly kind: 'box'; readonly shape: readonly number[]; readonly offsets: readonly number[] };
}

type Fail = (what: string) => InputError;

const MAX_DIMS = 16;
/** Ranks of a mesh. */
const MAX_PLACES = 1 << 16;
/** Meshes that a file's tensors are cut over; they mostly share one. */
const MAX_MESHES = 4096;
/** All tensors of a file together, by the file's bytes; tied weights are there twice. */
const MOST_OF_FILE = 16;
/** Bytes of all tensors that were found in a file. */
const foundBytes = new WeakMap<TorchArchive, number>();
const meshes = new WeakMap<TorchArchive, Map<PickleValue | undefined, DeviceMesh>>();

/** A tuple, list or torch.Size of non-negative integers; null when it is something else. */
function sizesOf(value: PickleValue | undefined): number[] | null {
  if (isKind(value, 'call') && value.callee.id === SIZE) return value.args.length === 1 ? sizesOf(value.args[0]) : null;
  if (!isKind(value, 'tuple') && !isKind(value, 'list')) return null;
  const sizes = (value.items as readonly PickleValue[]).filter(
    (n): n is number => Number.isSafeInteger(n) && (n as number) >= 0,
  );
  return sizes.length === value.items.length && sizes.length <= MAX_DIMS ? sizes : null;
}

const globalId = (value: PickleValue | undefined): string => (isKind(value, 'global') ? value.id : '');

/** A view by `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)`, checked against its storage. */
function viewOf(args: readonly PickleValue[], archive: TorchArchive, fail: Fail): RangedTensor {
  const [reference, offset, size, stride, , , metadata] = args;
  // torch's lazy negation and conjugation: the storage holds other values than the tensor.
  if (isKind(metadata, 'dict'))
    for (const [bit, set] of metadata.entries)
      if (set !== false && set !== null)
        throw fail(`is saved with its ${String(bit)} bit set, which is not read; resolve it before saving`);
  const id = isKind(reference, 'persistent') && isKind(reference.id, 'tuple') ? reference.id.items : [];
  const [tag, storageClass, key, , numel] = id;
  const dtype = STORAGE_DTYPES.get(globalId(storageClass));
  if (tag !== 'storage' || dtype === undefined || typeof key !== 'string' || !/^\d+$/.test(key))
    throw fail('damaged: a tensor without a storage');
  if (dtype === null) throw fail(`elements of ${globalId(storageClass)} are not read`);
  const [shape, strides] = [sizesOf(size), sizesOf(stride)];
  if (!shape || !strides || shape.length !== strides.length || !Number.isSafeInteger(offset) || (offset as number) < 0)
    throw fail('damaged: shape, strides or offset of a tensor');
  const storage = archive.storage(key);
  const elements = storage.entry.size / sizeOfDtype(dtype);
  if (elements !== numel)
    throw fail(`its storage has ${storage.entry.size} bytes, ${String(numel)} elements of ${dtype} are named`);
  const count = elementCount(shape);
  if (!Number.isSafeInteger(count)) throw fail(`damaged: shape [${shape}]`);
  const last = shape.reduce((sum, n, d) => sum + (n - 1) * (strides[d] as number), offset as number);
  if (count > 0 && last >= elements)
    throw fail(`[${shape}] with strides [${strides}] reads past the ${elements} elements of its storage`);
  // torch.save writes what a storage holds; only a view that repeats elements has more.
  if (count > elements)
    throw fail(`[${shape}] with strides [${strides}] has ${count} elements, its storage ${elements}; refused`);
  const found = (foundBytes.get(archive) ?? 0) + count * sizeOfDtype(dtype);
  if (found > MOST_OF_FILE * archive.size)
    throw fail(`with it the tensors of the file have ${found} bytes, the file ${archive.size}; refused`);
  foundBytes.set(archive, found);
  const { entry } = storage;
  const fingerprint = `crc ${entry.crc} of ${entry.size}`;
  const source = { fingerprint, read: (begin: number, target: Uint8Array) => storage.read(begin, target) };
  return stridedTensor(source, { dtype, offset: offset as number, shape, stride: strides });
}

/** Integers of a small tensor (a mesh's ranks). */
function integersOf(
  value: PickleValue | undefined,
  archive: TorchArchive,
  fail: Fail,
): { shape: readonly number[]; values: number[] } | null {
  if (!isKind(value, 'call') || value.callee.id !== REBUILD_TENSOR) return null;
  const tensor = viewOf(value.args, archive, fail);
  const count = elementCount(tensor.shape);
  if ((tensor.dtype !== 'I32' && tensor.dtype !== 'I64') || !(count <= MAX_PLACES))
    throw fail('damaged: the ranks of a mesh');
  const bytes = new Uint8Array(count * sizeOfDtype(tensor.dtype));
  tensor.read(0, bytes);
  return { shape: tensor.shape, values: Array.from(viewAs(tensor.dtype, bytes), Number) };
}

/** Integers of a number or of nested tuples; cut off behind so many as no mesh has. Lists may hold each other in a circle. */
function flatten(value: PickleValue | undefined): unknown[] {
  const found: unknown[] = [];
  const waiting: (PickleValue | undefined)[] = [value];
  for (let steps = 0; waiting.length > 0 && steps < 8 * MAX_DIMS; steps++) {
    const item = waiting.pop();
    if (isKind(item, 'tuple') || isKind(item, 'list')) waiting.push(...item.items.slice(0, MAX_DIMS + 1).reverse());
    else found.push(item);
  }
  return waiting.length > 0 ? [null] : found;
}

/**
 * A mesh's layout: a list of axes, each with a shape and strides (2.15), or one shape and stride of an axis an item
 * (before). An axis without dims has one place.
 */
function layoutOf(layout: PickleValue | undefined): { axes: number[]; shape: number[]; stride: number[] } | null {
  const isSize = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  const items = (value: PickleValue | undefined) =>
    isKind(value, 'tuple') || isKind(value, 'list') ? value.items : value === undefined ? null : [value];
  const list = attributeOf(layout, 'axes');
  const parts =
    list === undefined ? [layout] : isKind(list, 'tuple') || isKind(list, 'list') ? [...list.items] : [undefined];
  const axes: unknown[][] = [];
  const stride: unknown[] = [];
  if (parts.length > MAX_DIMS) return null;
  for (const part of parts) {
    const shape = items(attributeOf(part, 'shape'));
    if (!shape || shape.length > MAX_DIMS) return null;
    if (list === undefined) axes.push(...shape.map(flatten));
    else axes.push(shape.flatMap(flatten));
    stride.push(...flatten(attributeOf(part, 'stride')));
  }
  const shape = axes.flat();
  if (shape.length !== stride.length || shape.length > MAX_DIMS || axes.length === 0 || axes.length > MAX_DIMS)
    return null;
  if (!shape.every(isSize) || !stride.every(isSize)) return null;
  return { axes: axes.map((axis) => elementCount(axis as number[])), shape, stride };
}

function meshOf(value: PickleValue | undefined, archive: TorchArchive, fail: Fail): DeviceMesh {
  const known = meshes.get(archive) ?? new Map<PickleValue | undefined, DeviceMesh>();
  meshes.set(archive, known);
  const mesh = known.get(value) ?? readMesh(value, archive, fail);
  if (known.set(value, mesh).size > MAX_MESHES) throw fail(`more than ${MAX_MESHES} device meshes in one file`);
  return mesh;
}

function readMesh(value: PickleValue | undefined, archive: TorchArchive, fail: Fail): DeviceMesh {
  const coordinate = sizesOf(attributeOf(value, '_coordinate_on_dim'));
  const rankValue = attributeOf(value, '_rank');
  const rank = typeof rankValue === 'number' ? rankValue : null;
  const direct = integersOf(attributeOf(value, 'mesh'), archive, fail);
  if (direct) return { shape: direct.shape, ranks: direct.values, coordinate, rank };
  const layout = layoutOf(attributeOf(value, '_layout'));
  if (!layout) throw fail('a device mesh without a shape that is understood');
  const map = integersOf(attributeOf(value, '_rank_map'), archive, fail)?.values ?? null;
  const places = elementCount(layout.shape);
  if (!(places <= MAX_PLACES)) throw fail(`a device mesh of [${layout.shape}]`);
  const ranks = Array.from({ length: places }, (_, place) => {
    let at = 0;
    for (let dim = layout.shape.length - 1, rest = place; dim >= 0; dim--) {
      const n = layout.shape[dim] as number;
      at += (rest % n) * (layout.stride[dim] as number);
      rest = Math.floor(rest / n);
    }
    return map ? map[at] : at;
  });
  if (ranks.includes(undefined)) throw fail('damaged: the ranks of a mesh');
  return { shape: layout.axes, ranks: ranks as number[], coordinate, rank };
}

function placementsOf(value: PickleValue | undefined, fail: Fail): Placement[] {
  if (!isKind(value, 'tuple') && !isKind(value, 'list')) throw fail('damaged: no placements');
  return value.items.map((item) => {
    const cls = isKind(item, 'object') ? item.cls.id : '';
    if (cls === REPLICATE) return { kind: 'replicate' };
    const dim = attributeOf(item, 'dim');
    if (cls !== SHARD || typeof dim !== 'number' || !Number.isInteger(dim) || dim < 0)
      throw fail('a placement that is not understood');
    return { kind: 'shard', dim };
  });
}

/** State of an object with slots: (None or dict, dict); or the dict itself. */
function slotsOf(state: PickleValue | undefined): (name: string) => PickleValue | undefined {
  const dicts = isKind(state, 'tuple') ? state.items : [state];
  return (name) => {
    for (const dict of dicts) if (isKind(dict, 'dict') && dict.entries.has(name)) return dict.entries.get(name);
    return undefined;
  };
}

/** A tensor that is no part of another; null for anything else, which may refer to itself. */
function plainOf(value: PickleValue | undefined, archive: TorchArchive, fail: Fail): RangedTensor | null {
  if (!isKind(value, 'call')) return null;
  const { callee, args } = value;
  if (callee.id === REBUILD_TENSOR) return viewOf(args, archive, fail);
  if (callee.id === REBUILD_PARAMETER && isKind(args[0], 'call') && args[0].callee.id === REBUILD_TENSOR)
    return viewOf(args[0].args, archive, fail);
  if (callee.id !== REBUILD_FROM_TYPE) return null;
  const [make, type, inner] = args;
  const cls = globalId(type);
  const isTensor = globalId(make) === REBUILD_TENSOR && (cls === TENSOR || cls === PARAMETER);
  return isTensor && isKind(inner, 'tuple') ? viewOf(inner.items, archive, fail) : null;
}

function dtensorOf(
  state: PickleValue | undefined,
  wrapper: PickleValue | undefined,
  archive: TorchArchive,
  fail: Fail,
): TorchTensor {
  const slot = slotsOf(state);
  const inner = slot('_local_tensor');
  const local = plainOf(inner, archive, fail);
  if (!local) throw fail('a DTensor without a local tensor');
  const spec = slot('_spec');
  const meta = attributeOf(spec, 'tensor_meta');
  const args = isKind(wrapper, 'tuple') ? wrapper.items : [];
  const shape = sizesOf(args[2]);
  if (!shape) throw fail('a DTensor without a shape');
  const named = isKind(meta, 'object') ? sizesOf(meta.args[0] ?? attributeOf(meta, 'shape')) : null;
  if (named && String(named) !== String(shape)) throw fail(`shape [${shape}], but its spec says [${named}]`);
  const mesh = meshOf(attributeOf(spec, 'mesh'), archive, fail);
  const placements = placementsOf(attributeOf(spec, 'placements'), fail);
  if (placements.length !== mesh.shape.length)
    throw fail(`${placements.length} placements on a mesh of [${mesh.shape}]`);
  return { local, cut: { kind: 'mesh', shape, mesh, placements } };
}

/** FSDP1's ShardedTensor: (local shards, metadata, …). A rank behind the last row has no shard. */
function shardedTensorOf(
  state: PickleValue | undefined,
  wrapper: PickleValue | undefined,
  archive: TorchArchive,
  fail: Fail,
): TorchTensor {
  const [shards, metadata] = isKind(state, 'tuple') ? state.items : [];
  // Some of these classes have slots, so their state is a pair.
  const attribute = (value: PickleValue | undefined, name: string) =>
    isKind(value, 'object') ? slotsOf(value.state)(name) : undefined;
  const shape = sizesOf(attribute(metadata, 'size'));
  if (!isKind(shards, 'list') || !shape || shape.length === 0) throw fail('a ShardedTensor that is not understood');
  const [shard] = shards.items;
  if (shard === undefined) {
    const dtype = TORCH_DTYPES.get(globalId(isKind(wrapper, 'tuple') ? wrapper.items[1] : undefined));
    if (!dtype) throw fail('a ShardedTensor of a dtype that is not read');
    const none = { fingerprint: `nothing of [${shape}]`, read: () => {} };
    const empty = [0, ...shape.slice(1)];
    const local = stridedTensor(none, { dtype, offset: 0, shape: empty, stride: empty.map(() => 1) });
    return { local, cut: { kind: 'box', shape, offsets: shape.map(() => 0) } };
  }
  if (shards.items.length !== 1) throw fail(`a ShardedTensor of ${shards.items.length} local shards; one is read`);
  const inner = attribute(shard, 'tensor');
  const local = plainOf(inner, archive, fail);
  const place = attribute(shard, 'metadata');
  const offsets = sizesOf(attribute(place, 'shard_offsets'));
  const sizes = sizesOf(attribute(place, 'shard_sizes'));
  if (!local || offsets?.length !== shape.length || String(sizes) !== String(local.shape))
    throw fail('a ShardedTensor whose shard does not fit its description');
  return { local, cut: { kind: 'box', shape, offsets } };
}

/**
 * Understands a value of a state dict.
 * @returns null when it is no tensor.
 * @throws InputError (by `fail`) when it is one that is damaged or of a kind that is not read.
 */
export function torchTensorOf(value: PickleValue, archive: TorchArchive, fail: Fail): TorchTensor | null {
  if (!isKind(value, 'call')) return null;
  const plain = plainOf(value, archive, fail);
  if (plain) return { local: plain, cut: { kind: 'none' } };
  const { callee, args } = value;
  if (callee.id === REBUILD_PARAMETER) {
    // A parameter's own argument is never another parameter, so this ends.
    if (isKind(args[0], 'call') && args[0].callee.id === REBUILD_PARAMETER)
      throw fail('damaged: a parameter of a parameter');
    return args[0] === undefined ? null : torchTensorOf(args[0], archive, fail);
  }
  if (callee.id !== REBUILD_FROM_TYPE) return null;
  const [make, type, inner, state] = args;
  const [maker, cls] = [globalId(make), globalId(type)];
  if (maker === REBUILD_WRAPPER && cls === DTENSOR) return dtensorOf(state, inner, archive, fail);
  if (maker === REBUILD_WRAPPER && cls === SHARDED_TENSOR) return shardedTensorOf(state, inner, archive, fail);
  throw fail(`a tensor of type ${cls || 'unknown'} made by ${maker || 'something unknown'}`);
}

/** Names and values of the state dict that a file of torch.save holds. @throws InputError when it is no dict of names. */
export function stateDictOf(value: PickleValue, path: string): Map<string, PickleValue> {
  if (!isKind(value, 'dict')) throw new InputError(`${path}: holds no state dict`);
  const named = new Map<string, PickleValue>();
  for (const [name, item] of value.entries) {
    if (typeof name !== 'string') throw new InputError(`${path}: the state dict has the key ${name}, not a name`);
    // Errors name the tensor, in one line.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
    if (/[\u0000-\u001f\u007f\u2028\u2029]/.test(name))
      throw new InputError(`${path}: tensor ${JSON.stringify(name)}: a name with control characters; rename it`);
    named.set(name, item);
  }
  return named;
}
