import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  isKind,
  type PickleValue,
  pickleCall,
  pickleDict,
  pickleGlobal,
  pickleList,
  pickleTuple,
  writePickle,
} from '@frame-thinker/pickle';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { dtensor, TorchFile, zip } from './testing/torch-file.ts';
import { FLOATS, type Local, twoRankCheckpoint } from './testing/two-rank-checkpoint.ts';

const { make, remove, at, shard, writeRank, writeGood, merge, refusal } = twoRankCheckpoint();
beforeEach(make);
afterEach(remove);

/** Files whose data.pkl is these bytes. */
const writePickles = (bytes: Uint8Array) => {
  for (const rank of [0, 1]) writeFileSync(shard(rank), zip([['a/data.pkl', bytes]]));
};
const code = (...parts: (number | string | Uint8Array)[]) =>
  Buffer.concat(
    parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part as string, 'latin1'))),
  );

it('merges the good one', async () => {
  writeGood();
  expect(await merge()).toMatchObject({ tensors: 1, bytes: 48 });
});

describe('ranks', () => {
  it.each<[string, () => void, RegExp]>([
    [
      'swapped',
      () => {
        cpSync(shard(0), join(at.root, 'actor/keep'));
        cpSync(shard(1), shard(0));
        cpSync(join(at.root, 'actor/keep'), shard(1));
      },
      /rank_0\.pt: tensor w: the file's name says rank 0, its content rank 1/,
    ],
    [
      'twice',
      () => cpSync(shard(0), shard(1)),
      /rank_1\.pt: tensor w: the file's name says rank 1, its content rank 0/,
    ],
    ['missing', () => rmSync(shard(1)), /rank_1\.pt: missing: rank 1 of 2/],
    [
      'of another world size',
      () => {
        for (const rank of [0, 1, 2]) cpSync(shard(Math.min(rank, 1)), shard(rank, 3));
        for (const rank of [0, 1]) rmSync(shard(rank));
      },
      /written by a mesh of \[2\] ranks, the file's name says 3/,
    ],
    ['beside those of another world size', () => cpSync(shard(0), shard(0, 3)), /mixed world sizes \(2, 3\)/],
    ['with too few rows', () => writeRank(1, { shape: [1, 3] }), /holds \[1,3\]; rank 1 of \[4,3\] must hold \[2,3\]/],
    [
      'of another dtype',
      () => {
        const file = new TorchFile();
        file.save(
          shard(1),
          pickleDict([['w', dtensor(file.tensor('BF16', [2, 3], new Uint8Array(12)), [4, 3], 0, 2, 1)]]),
        );
      },
      /rank_1\.pt: tensor w: BF16, but F32/,
    ],
    [
      'that do not say which they are',
      () => {
        for (const rank of [0, 1]) {
          const file = new TorchFile();
          const w = dtensor(file.tensor('F32', [2, 3], FLOATS(6, rank)), [4, 3], 0, 2, null);
          file.save(shard(rank), pickleDict([['w', w]], true));
        }
      },
      /rank_0\.pt: tensor w: nothing in it says which rank of the mesh it is of/,
    ],
    [
      'whose values are negated only when they are read',
      () => {
        const file = new TorchFile();
        const plain = file.tensor('F32', [2, 3], FLOATS(6));
        if (!isKind(plain, 'call')) throw new Error('no call');
        const negated = pickleCall(plain.callee.id, ...plain.args, pickleDict([['neg', true]]));
        file.save(shard(0), pickleDict([['w', dtensor(negated, [4, 3], 0, 2, 0)]], true));
      },
      /rank_0\.pt: tensor w: is saved with its neg bit set, which is not read/,
    ],
    [
      'without some of the layers that the config names',
      () => {
        writeFileSync(join(at.root, 'base/config.json'), '{"num_hidden_layers": 3}');
        for (const rank of [0, 1]) {
          const file = new TorchFile();
          const layers = [0, 2].map((layer): [string, PickleValue] => [
            `model.layers.${layer}.w`,
            dtensor(file.tensor('F32', [2, 3], FLOATS(6, rank)), [4, 3], 0, 2, rank),
          ]);
          file.save(shard(rank), pickleDict(layers, true));
        }
      },
      /actor: holds nothing of layer 1; .*config\.json has 3 layers/,
    ],
    [
      'with more layers than the config names',
      () => {
        writeFileSync(join(at.root, 'base/config.json'), '{"num_hidden_layers": 1}');
        for (const rank of [0, 1]) {
          const file = new TorchFile();
          const layers = [0, 1].map((layer): [string, PickleValue] => [
            `model.language_model.layers.${layer}.w`,
            dtensor(file.tensor('F32', [2, 3], FLOATS(6, rank)), [4, 3], 0, 2, rank),
          ]);
          file.save(shard(rank), pickleDict(layers, true));
        }
      },
      /actor: holds layer 1; .*config\.json has 1 layers/,
    ],
    [
      'with another tensor',
      () => {
        const file = new TorchFile();
        file.save(shard(1), pickleDict([['v', dtensor(file.tensor('F32', [2, 3], FLOATS(6)), [4, 3], 0, 2, 1)]]));
      },
      /rank_1\.pt: tensor w: missing/,
    ],
  ])('%s', async (_what, spoil, message) => {
    writeGood();
    spoil();
    expect(await refusal()).toMatch(message);
  });
});

describe('views of storages', () => {
  it.each<[string, Local, RegExp]>([
    ['a negative stride', { stride: [3, -1], offset: 5 }, /shape, strides or offset/],
    ['a negative offset', { offset: -1 }, /shape, strides or offset/],
    ['an offset behind the end', { offset: 1 }, /reads past the 6 elements/],
    ['an offset beyond all integers', { offset: 2 ** 60 }, /shape, strides or offset/],
    ['a stride behind the end', { stride: [4, 1] }, /reads past the 6 elements/],
    ['a stride that overflows', { stride: [2 ** 52, 1] }, /reads past the 6 elements/],
    ['more strides than dims', { stride: [3, 1, 1] }, /shape, strides or offset/],
    ['a negative size', { shape: [2, -3], stride: [3, 1] }, /shape, strides or offset/],
    ['a shape that overflows', { shape: [2 ** 40, 2 ** 40], stride: [0, 0] }, /shape \[/],
    ['a shape larger than its storage', { shape: [2 ** 20, 3] }, /reads past the 6 elements/],
    [
      'a shape that only repeats',
      { shape: [2 ** 20, 2 ** 20], stride: [0, 0] },
      /has 1099511627776 elements, its storage 6/,
    ],
    ['a row that repeats', { data: FLOATS(3), stride: [0, 1] }, /has 6 elements, its storage 3; refused/],
    ['a storage that is too short', { data: FLOATS(5) }, /reads past the 5 elements/],
  ])('%s', async (_what, local, message) => {
    writeGood();
    writeRank(0, local);
    expect(await refusal()).toMatch(message);
  });
});

it('tensors that all name one storage, more than any model ties', async () => {
  const write = (count: number) => {
    for (const rank of [0, 1]) {
      const file = new TorchFile();
      const local = file.tensor('F32', [2000, 3], FLOATS(6000, rank));
      const tensor = dtensor(local, [4000, 3], 0, 2, rank);
      file.save(shard(rank), pickleDict(Array.from({ length: count }, (_, i) => [`w${i}`, tensor] as const)));
    }
  };
  write(2);
  expect(await merge()).toMatchObject({ tensors: 2 });
  rmSync(join(at.root, 'out'), { recursive: true });
  write(30);
  expect(await refusal()).toMatch(/rank_0\.pt: tensor w\d+: with it the tensors of the file have \d+ bytes, the file/);
});

describe('names', () => {
  const named = (...names: string[]) => {
    for (const rank of [0, 1]) {
      const file = new TorchFile();
      const tensor = () => dtensor(file.tensor('F32', [2, 3], FLOATS(6)), [4, 3], 0, 2, rank);
      file.save(shard(rank), pickleDict(names.map((name) => [name, tensor()] as const)));
    }
  };
  it('that safetensors keeps for itself', async () => {
    named('w', '__metadata__');
    expect(await refusal()).toBe(
      `${at.actor}: tensor "__metadata__": safetensors keeps this name for itself; rename the tensor`,
    );
  });
  it('of several lines', async () => {
    named('w', 'a\nb');
    expect(await refusal()).toBe(`${shard(0)}: tensor "a\\nb": a name with control characters; rename it`);
  });
  it('that become one on the disk', async () => {
    named('model.language_model.x', 'model.x');
    writeFileSync(join(at.root, 'base/config.json'), '{"model_type": "qwen2_5_vl"}');
    expect(await refusal()).toBe(`${at.actor}: tensor "model.x": two tensors would be written under this name`);
  });
  it.each(['__proto__', 'constructor', '0', ''])('that are nothing special: %j', async (name) => {
    named('w', name);
    expect(await merge()).toMatchObject({ tensors: 2 });
  });
});

describe('what refers to itself, or grows', () => {
  const local = '_local_tensor';
  /** The dicts of a DTensor: its state, its spec's, its mesh's and its layout's. */
  function stateOf(value: PickleValue): Map<string | number, PickleValue> {
    const args = (value as unknown as { args: PickleValue[] }).args;
    return (args[3] as { items: { entries: Map<string, PickleValue> }[] }).items[1]!.entries;
  }
  it('a tensor whose local part is itself', async () => {
    writeGood();
    writeRank(0, {}, (tensor) => {
      stateOf(tensor).set(local, tensor);
      return tensor;
    });
    expect(await refusal()).toMatch(/rank_0\.pt: tensor w: a DTensor without a local tensor/);
  });
  it.each<[string, () => PickleValue]>([
    [
      'a circle',
      () => {
        const list = pickleList();
        list.items.push(list);
        return list;
      },
    ],
    [
      'doubled a hundred times',
      () => Array.from({ length: 100 }).reduce<PickleValue>((inner) => pickleTuple(inner, inner), pickleTuple(2)),
    ],
  ])('a layout of a mesh that is %s', async (_what, make) => {
    writeGood();
    writeRank(0, {}, (tensor) => {
      const attributes = (value: unknown) => (value as { state: { entries: Map<string, PickleValue> } }).state.entries;
      const layout = attributes(attributes(stateOf(tensor).get('_spec')).get('mesh')).get('_layout');
      attributes((attributes(layout).get('axes') as { items: unknown[] }).items[0]).set('shape', make());
      return tensor;
    });
    expect(await refusal()).toMatch(/rank_0\.pt: tensor w: a device mesh without a shape that is understood/);
  });
  it('values nested without end', async () => {
    writePickles(
      code(
        0x80,
        2,
        ')',
        Uint8Array.from({ length: 100_000 }, () => 0x85),
        '.',
      ),
    );
    expect(await refusal()).toMatch(/at byte \d+: values nested deeper than 200/);
  });
  it('a memo of millions', async () => {
    const put = (i: number) => [0x72, i & 255, (i >> 8) & 255, (i >> 16) & 255, 0];
    const puts = Buffer.alloc(5 * 2_000_000);
    for (let i = 0; i < 2_000_000; i++) puts.set(put(i), 5 * i);
    writePickles(code(0x80, 2, 'N', puts, '.'));
    expect(await refusal()).toMatch(/holds no state dict|memo/);
  });
  it('containers by the million', async () => {
    writePickles(code(0x80, 2, Buffer.alloc(4_500_000, ']'), '.'));
    expect(await refusal()).toMatch(/at byte 4000002: more than 4000000 containers/);
  });
  it('a call that a list of exact names does not have', async () => {
    writePickles(writePickle(pickleCall('os system', 'touch here')));
    expect(await refusal()).toMatch(/rank_0\.pt: a\/data\.pkl: at byte 2: global "os\.system"/);
    expect(existsSync('here')).toBe(false);
  });
  it('a member of a listed class that is not listed', async () => {
    const bytes = writePickle(
      pickleCall(
        '__builtin__ getattr',
        pickleGlobal('torch.distributed._shard.sharded_tensor.api ShardedTensor'),
        '__init_subclass__',
      ),
    );
    writePickles(bytes);
    expect(await refusal()).toMatch(/ShardedTensor\.__init_subclass__" is not on the list/);
  });
});

describe('archives', () => {
  /** The good file of rank 0, changed. `end`: offset of the end of the central directory; `central`: of its first entry. */
  async function spoiled(change: (bytes: Buffer, at: { end: number; central: number }) => Buffer): Promise<string> {
    writeGood();
    const bytes = readFileSync(shard(0));
    const end = bytes.length - 22;
    writeFileSync(shard(0), change(bytes, { end, central: bytes.readUInt32LE(end + 16) }));
    return await refusal();
  }
  /** Ends of directory of zip64 in front of the end. */
  function withZip64(
    bytes: Buffer,
    end: number,
    values: { entries: number; size: number; begin: number; at?: number },
  ) {
    const wide = Buffer.alloc(56);
    wide.writeUInt32LE(0x06064b50);
    wide.writeBigUInt64LE(44n, 4);
    wide.writeBigUInt64LE(BigInt(values.entries), 24);
    wide.writeBigUInt64LE(BigInt(values.entries), 32);
    wide.writeBigUInt64LE(BigInt(values.size), 40);
    wide.writeBigUInt64LE(BigInt(values.begin), 48);
    const locator = Buffer.alloc(20);
    locator.writeUInt32LE(0x07064b50);
    locator.writeBigUInt64LE(BigInt(values.at ?? end), 8);
    locator.writeUInt32LE(1, 16);
    const last = Buffer.from(bytes.subarray(end));
    last.writeUInt16LE(0xffff, 8);
    last.writeUInt16LE(0xffff, 10);
    last.writeUInt32LE(0xffffffff, 12);
    last.writeUInt32LE(0xffffffff, 16);
    return Buffer.concat([bytes.subarray(0, end), wide, locator, last]);
  }

  it('an honest zip64 end is read', async () => {
    writeGood();
    const bytes = readFileSync(shard(0));
    const end = bytes.length - 22;
    const [size, begin] = [bytes.readUInt32LE(end + 12), bytes.readUInt32LE(end + 16)];
    writeFileSync(shard(0), withZip64(bytes, end, { entries: bytes.readUInt16LE(end + 10), size, begin }));
    expect(await merge()).toMatchObject({ tensors: 1 });
  });
  it.each<[string, Partial<{ entries: number; size: number; begin: number; at: number }>, RegExp]>([
    ['too many entries', { entries: 2 ** 50 }, /breaks off after/],
    ['a directory beyond the file', { begin: 2 ** 50 }, /does not fit the file/],
    ['a directory of petabytes', { size: 2 ** 50 }, /does not fit the file/],
    ['an end beyond the file', { at: 2 ** 50 }, /zip64 end of directory lies beyond/],
    ['an end that is none', { at: 0 }, /no zip64 end of directory where/],
  ])('a zip64 that names %s', async (_what, lie, message) => {
    const said = await spoiled((bytes, { end, central }) =>
      withZip64(bytes, end, { entries: bytes.readUInt16LE(end + 10), size: end - central, begin: central, ...lie }),
    );
    expect(said).toMatch(message);
  });
  it('an entry whose size is the next one too', async () => {
    const said = await spoiled((bytes, { central }) => {
      const size = bytes.readUInt32LE(central + 24) + 10;
      bytes.writeUInt32LE(size, central + 20);
      bytes.writeUInt32LE(size, central + 24);
      return bytes;
    });
    expect(said).toMatch(/overlaps the entry before it/);
  });
  it('two entries with one place', async () => {
    const said = await spoiled((bytes, { central }) => {
      const second = central + 46 + bytes.readUInt16LE(central + 28);
      bytes.writeUInt32LE(bytes.readUInt32LE(central + 42), second + 42);
      return bytes;
    });
    expect(said).toMatch(/overlaps|another name/);
  });
  it('a flipped byte of a tensor', async () => {
    const said = await spoiled((bytes, { central }) => {
      bytes[central - 1]! ^= 1;
      return bytes;
    });
    expect(said).toMatch(/rank_0\.pt: a\/data\/0: damaged: its CRC-32/);
  });
  it('big endian', async () => {
    writeGood();
    const file = new TorchFile();
    const value = pickleDict([['w', dtensor(file.tensor('F32', [2, 3], FLOATS(6)), [4, 3], 0, 2, 0)]]);
    const entries = [
      ['a/data.pkl', writePickle(value)],
      ['a/byteorder', Buffer.from('big')],
      ['a/data/0', FLOATS(6)],
    ] as [string, Uint8Array][];
    writeFileSync(shard(0), zip(entries));
    expect(await refusal()).toMatch(/rank_0\.pt: byte order "big"/);
  });
  it.each(['a/../../x', '/etc/x', 'a\\x', 'a/./x', 'C:x'])('an entry named %s', async (name) => {
    writeGood();
    writeFileSync(
      shard(0),
      zip([
        ['a/data.pkl', Buffer.from('x')],
        [name, Buffer.from('x')],
      ]),
    );
    expect(await refusal()).toMatch(/could leave its folder/);
  });
});

it('says when copies differ', async () => {
  const [ranks, shape] = [4, [2, 3]];
  const copies = (rank: number, value: number) => {
    const file = new TorchFile();
    const args = dtensor(file.tensor('F32', shape, FLOATS(6, value)), shape, 0, ranks, rank);
    const spec = (args as unknown as { args: { items: { entries: Map<string, unknown> }[] }[] }).args[3]!.items[1]!
      .entries;
    const attributes = (spec.get('_spec') as { state: { entries: Map<string, PickleValue> } }).state.entries;
    const replicate = {
      kind: 'object',
      cls: pickleGlobal('torch.distributed.tensor.placement_types Replicate'),
    } as const;
    attributes.set('placements', pickleTuple({ ...replicate, args: [], state: undefined }));
    file.save(shard(rank, ranks), pickleDict([['w', args]]));
  };
  for (let rank = 0; rank < ranks; rank++) copies(rank, 0);
  expect((await merge()).notes.join()).not.toContain('differ');
  copies(2, 1);
  expect((await merge()).notes.join()).toContain('1 tensors differ between ranks that should hold copies');
});
