/** @file Writes small files of torch.save for tests, apart from the code that reads them. */
import { writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { type Dtype, elementCount, sizeOfDtype } from '@frame-thinker/checkpoint';
import {
  type PickleValue,
  pickleCall,
  pickleDict,
  pickleGlobal,
  pickleObject,
  picklePersistent,
  pickleTuple,
  writePickle,
} from '@frame-thinker/pickle';

/** A zip archive of stored entries. */
export function zip(entries: [string, Uint8Array][]): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, data] of entries) {
    const title = Buffer.from(name);
    const common = Buffer.alloc(26);
    common.writeUInt32LE(crc32(data), 10);
    common.writeUInt32LE(data.byteLength, 14);
    common.writeUInt32LE(data.byteLength, 18);
    common.writeUInt16LE(title.length, 22);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    common.copy(central, 6);
    central.writeUInt32LE(at, 42);
    directory.push(central, title);
    const local = Buffer.alloc(4);
    local.writeUInt32LE(0x04034b50);
    parts.push(local, common, title, Buffer.from(data));
    at += 30 + title.length + data.byteLength;
  }
  const listed = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(listed.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, listed, end]);
}

const STORAGES: Record<string, string> = {
  F32: 'Float',
  BF16: 'BFloat16',
  F16: 'Half',
  I64: 'Long',
  F64: 'Double',
  U8: 'Byte',
};
/** Row-major. */
export const strides = (shape: readonly number[]) => shape.map((_, d) => elementCount(shape.slice(d + 1)));

/** A file of torch.save. Storages are numbered in the order in which tensors are made. */
export class TorchFile {
  readonly storages: Uint8Array[] = [];

  tensor(dtype: Dtype, shape: number[], data: Uint8Array, stride = strides(shape), offset = 0): PickleValue {
    this.storages.push(data);
    const numel = data.byteLength / sizeOfDtype(dtype);
    const key = String(this.storages.length - 1);
    const id = pickleTuple('storage', pickleGlobal(`torch ${STORAGES[dtype]}Storage`), key, 'cpu', numel);
    const args = [
      picklePersistent(id),
      offset,
      pickleTuple(...shape),
      pickleTuple(...stride),
      false,
      pickleDict([], true),
    ];
    return pickleCall('torch._utils _rebuild_tensor_v2', ...args);
  }
  save(path: string, value: PickleValue): void {
    writeFileSync(
      path,
      zip([
        ['a/data.pkl', writePickle(value)],
        ['a/byteorder', new TextEncoder().encode('little')],
        ...this.storages.map((data, i): [string, Uint8Array] => [`a/data/${i}`, data]),
      ]),
    );
  }
}

/**
 * One rank's DTensor, as torch 2.15 describes it: cut on `dim` over a mesh of one dim, or of two where there are copies (HSDP).
 * Rank null: nothing says the rank.
 */
export function dtensor(
  local: PickleValue,
  shape: number[],
  dim: number,
  worldSize: number,
  rank: number | null,
  copies = 1,
): PickleValue {
  const shards = worldSize / copies;
  const axis = (size: number, stride: number) =>
    pickleObject(
      'torch.distributed._mesh_layout _FlatLayout',
      pickleDict([
        ['shape', pickleTuple(size)],
        ['stride', pickleTuple(stride)],
      ]),
    );
  const axes = copies > 1 ? pickleTuple(axis(copies, shards), axis(shards, 1)) : pickleTuple(axis(shards, 1));
  const place = (at: number) => (copies > 1 ? pickleTuple(Math.floor(at / shards), at % shards) : pickleTuple(at));
  const mesh = pickleObject(
    'torch.distributed.device_mesh DeviceMesh',
    pickleDict([
      ['_layout', pickleObject('torch.distributed._mesh_layout _MeshLayout', pickleDict([['axes', axes]]))],
      ...(rank === null
        ? []
        : ([
            ['_coordinate_on_dim', place(rank)],
            ['_rank', rank],
          ] as const)),
    ]),
  );
  const shard = pickleObject('torch.distributed.tensor.placement_types Shard', pickleDict([['dim', dim]]));
  const replicate = pickleObject('torch.distributed.tensor.placement_types Replicate', pickleDict([]));
  const spec = pickleObject(
    'torch.distributed.tensor._dtensor_spec DTensorSpec',
    pickleDict([
      ['mesh', mesh],
      ['placements', copies > 1 ? pickleTuple(replicate, shard) : pickleTuple(shard)],
    ]),
  );
  const type = pickleGlobal('torch.distributed.tensor DTensor');
  const args = pickleTuple(type, pickleGlobal('torch float32'), pickleTuple(...shape));
  return pickleCall(
    'torch._tensor _rebuild_from_type_v2',
    pickleGlobal('torch._utils _rebuild_wrapper_subclass'),
    type,
    args,
    pickleTuple(
      null,
      pickleDict([
        ['_local_tensor', local],
        ['_spec', spec],
      ]),
    ),
  );
}
