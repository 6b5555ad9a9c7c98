import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  bytesOf,
  type Dtype,
  elementCount,
  MOST_READ,
  openHfFolder,
  openTorchArchive,
  openZip,
  shardRange,
  sizeOfDtype,
  stateDictOf,
  type TorchArchive,
  torchTensorOf,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { isKind, type PickleValue, pickleDict } from '@frame-thinker/pickle';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type MergeOptions, mergeCheckpoint } from './merge.ts';
import { dtensor, strides, TorchFile, zip } from './testing/torch-file.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'torch-shards-'));
  mkdirSync(join(root, 'base'));
  writeFileSync(join(root, 'base/config.json'), '{}');
});
afterEach(() => rmSync(root, { recursive: true }));

interface Weight {
  shape: number[];
  dtype: Dtype;
  dim: number;
  /** Rows of the transposed local part lie apart: strides are not row-major. */
  transposed: boolean;
  bytes: Uint8Array;
}

/** The part [start, end) of a dim, row-major. */
function cut({ shape, dtype, dim, bytes }: Weight, start: number, end: number): Uint8Array {
  const row = elementCount(shape.slice(dim)) * sizeOfDtype(dtype);
  const inner = elementCount(shape.slice(dim + 1)) * sizeOfDtype(dtype);
  const rows = row === 0 ? 0 : bytes.byteLength / row;
  return Buffer.concat(
    Array.from({ length: rows }, (_, r) => bytes.subarray(r * row + start * inner, r * row + end * inner)),
  );
}

/** The same matrix, column by column. */
function transpose(data: Uint8Array, [rows = 0, columns = 0]: number[], size: number): Uint8Array {
  const out = new Uint8Array(data.byteLength);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++)
      out.set(data.subarray((r * columns + c) * size, (r * columns + c + 1) * size), (c * rows + r) * size);
  return out;
}

/** Files of `shards` parts, each in as many copies (HSDP). */
function writeShardFiles(dir: string, weights: Weight[], shards: number, copies = 1): void {
  mkdirSync(dir, { recursive: true });
  const worldSize = shards * copies;
  for (let rank = 0; rank < worldSize; rank++) {
    const archive = new TorchFile();
    const entries = weights.map((weight, i): [string, PickleValue] => {
      const { shape, dtype, dim, transposed } = weight;
      const { start, end } = shardRange(shape[dim] as number, shards, rank % shards);
      const local = shape.map((n, d) => (d === dim ? end - start : n));
      const data = cut(weight, start, end);
      const size = sizeOfDtype(dtype);
      // One element of padding before and behind, as a view into a larger storage has.
      const pad = (inner: Uint8Array) => Buffer.concat([Buffer.alloc(size, 7), inner, Buffer.alloc(size, 7)]);
      const tensor =
        transposed && local.length === 2
          ? archive.tensor(dtype, local, pad(transpose(data, local, size)), [1, local[0] as number], 1)
          : archive.tensor(dtype, local, pad(data), strides(local), 1);
      return [`w${i}`, dtensor(tensor, shape, dim, worldSize, rank, copies)];
    });
    archive.save(join(dir, `model_world_size_${worldSize}_rank_${rank}.pt`), pickleDict(entries, true));
  }
}

const merge = (options: Partial<MergeOptions> & { localDir: string }) =>
  mergeCheckpoint({
    backend: 'fsdp',
    hfModelPath: join(root, 'base'),
    targetDir: join(root, 'out'),
    dtype: 'keep',
    ...options,
  });

const weightArbitrary: fc.Arbitrary<Weight> = fc
  .record({
    shape: fc.array(fc.nat(7), { minLength: 1, maxLength: 3 }),
    dtype: fc.constantFrom<Dtype>('F32', 'BF16', 'F16', 'I64', 'U8'),
    dim: fc.nat(2),
    transposed: fc.boolean(),
    seed: fc.nat(250),
  })
  .map(({ shape, dim, seed, ...rest }) => ({
    ...rest,
    shape,
    dim: dim % shape.length,
    bytes: new Uint8Array(elementCount(shape) * sizeOfDtype(rest.dtype)).map((_, i) => (i * 31 + seed) % 251),
  }));

describe('torch shards', () => {
  it('merge back to what was cut: any dim, dtype, mesh of one or two dims, strides', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(weightArbitrary, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 3 }),
        async (weights, shards, copies) => {
          const localDir = mkdtempSync(join(root, 'actor-'));
          const worldSize = shards * copies;
          writeShardFiles(localDir, weights, shards, copies);
          const result = await merge({ localDir, maxShardSize: 200, verify: true });
          expect(result).toMatchObject({ worldSize, tensors: weights.length });
          expect(result.notes.filter((note) => note.includes('differ'))).toEqual([]);
          const folder = openHfFolder(join(root, 'out'));
          for (const [i, { shape, dtype, bytes }] of weights.entries()) {
            expect([folder.shape(`w${i}`), folder.dtype(`w${i}`)]).toEqual([shape, dtype]);
            expect(Buffer.compare(bytesOf(folder.readRaw(`w${i}`).data), bytes)).toBe(0);
          }
          folder.close();
        },
      ),
      { numRuns: 30 },
    );
  });

  it('takes plain tensors that are equal in all ranks once, and refuses others', async () => {
    const write = (values: number[]) => {
      for (const [rank, value] of values.entries()) {
        const archive = new TorchFile();
        const tensor = archive.tensor('U8', [2], Uint8Array.of(1, value));
        archive.save(join(root, `base/../model_world_size_2_rank_${rank}.pt`), pickleDict([['buffer', tensor]]));
      }
    };
    write([5, 5]);
    await merge({ localDir: root, targetDir: join(tmpdir(), `plain-${process.pid}`) });
    rmSync(join(tmpdir(), `plain-${process.pid}`), { recursive: true });
    write([5, 6]);
    await expect(merge({ localDir: root, targetDir: join(tmpdir(), `plain-${process.pid}`) })).rejects.toThrow(
      'nothing says how it is cut',
    );
  });
});

/** Small files of torch.save that the fuzz test starts from. */
const FIXTURES = join(import.meta.dirname, '../../../tests/fixtures/merge');
const SEEDS = [
  'fsdp/qwen2_w4_fp32_uneven/model_world_size_4_rank_3.pt',
  'fsdp/t26_qwen2_w4_uneven_fp32/model_world_size_4_rank_0.pt',
  'megatron/mcore_tp2pp2_bf16/model/mp_rank_00_000/model.pt',
];

/** Bytes of all tensors that a file is said to hold, by those that it has. */
const MOST_OF_FILE = 16;

/** Reads all that a file holds (structure, tensors, checksums); a hash of it. */
function readWhole(path: string): string {
  const opened = openTorchArchive(path);
  let read = 0;
  const archive: TorchArchive = {
    ...opened,
    storage: (key) => {
      const storage = opened.storage(key);
      const count = (begin: number, target: Uint8Array) => {
        read += target.byteLength;
        storage.read(begin, target);
      };
      return { entry: storage.entry, touched: storage.touched, read: count, verify: () => storage.verify() };
    },
  };
  try {
    const { root: value } = archive;
    const found = createHash('sha256');
    let planned = 0;
    for (const [i, part] of (isKind(value, 'list') ? value.items : [value]).entries())
      for (const [name, item] of stateDictOf(part, path)) {
        const tensor = torchTensorOf(item, archive, (what) => new InputError(`${path}: tensor ${name}: ${what}`));
        if (!tensor) continue;
        const bytes = elementCount(tensor.local.shape) * sizeOfDtype(tensor.local.dtype);
        planned += bytes;
        expect(planned, name).toBeLessThanOrEqual(MOST_OF_FILE * archive.size);
        const data = Buffer.alloc(bytes);
        read = 0;
        tensor.local.read(0, data);
        expect(read, name).toBeLessThanOrEqual(MOST_READ * bytes);
        found.update(`${i} ${name} ${tensor.local.dtype} [${tensor.local.shape}]`).update(data);
      }
    archive.verify();
    return found.digest('hex');
  } finally {
    archive.close();
  }
}

/** Of each of the two tests: the archive's reader and the pickle's. */
const CASES = Number(process.env.FUZZ_CASES ?? 10_200);
/** Bytes by which the process may grow over all cases of a file. */
const MAX_GROWTH = 200e6;
/** Processor time of a case, whatever else the machine does; the slowest takes a hundredth. */
const MAX_SECONDS = 5;
let memoryBefore = 0;
let slowest = 0;

function timed<T>(run: () => T): T {
  const begin = process.cpuUsage();
  try {
    return run();
  } finally {
    slowest = Math.max(slowest, process.cpuUsage(begin).user / 1e6);
  }
}

beforeEach(() => {
  memoryBefore = process.memoryUsage().rss;
  slowest = 0;
});
afterEach(() => {
  expect(process.memoryUsage().rss - memoryBefore).toBeLessThan(MAX_GROWTH);
  expect(slowest).toBeLessThan(MAX_SECONDS);
});

describe('mutated files of torch.save', () => {
  it.each(SEEDS)('are read right or refused in one line: %s', (seed) => {
    const good = readFileSync(join(FIXTURES, seed));
    const path = join(root, 'mutated.pt');
    writeFileSync(path, good);
    const truth = readWhole(path);
    let random = 12345;
    const next = (n: number) => {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      return Math.floor((random / 2 ** 32) * n);
    };
    let [refused, right] = [0, 0];
    for (let i = 0; i < CASES / SEEDS.length; i++) {
      const bytes = Buffer.from(good);
      const changes = 1 + next(3);
      for (let c = 0; c < changes; c++) {
        // The directory at the end and the first headers and opcodes matter most.
        const at = [next(bytes.length), bytes.length - 1 - next(3000), next(400)][next(3)] as number;
        bytes[at] = next(4) === 0 ? (bytes[at] as number) ^ (1 << next(8)) : next(256);
      }
      const cutAt = next(10) === 0 ? next(bytes.length) : bytes.length;
      writeFileSync(path, bytes.subarray(0, cutAt));
      try {
        // A change that no checksum covers (an unused field) leaves the same tensors.
        expect(timed(() => readWhole(path))).toBe(truth);
        right++;
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        expect(error.message).not.toContain('\n');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(right);
  });

  it.each(SEEDS)('with a pickle whose checksum fits: %s', (seed) => {
    const path = join(root, 'mutated.pt');
    const good = readFileSync(join(FIXTURES, seed));
    writeFileSync(path, good);
    const entry = openEntries(path);
    let random = 777;
    const next = (n: number) => {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      return Math.floor((random / 2 ** 32) * n);
    };
    let refused = 0;
    for (let i = 0; i < CASES / SEEDS.length; i++) {
      const pickle = Buffer.from(entry.find(([name]) => name.endsWith('/data.pkl'))?.[1] ?? []);
      for (let c = 1 + next(3); c > 0; c--) pickle[next(pickle.length)] = next(256);
      writeFileSync(path, zip(entry.map(([name, data]) => [name, name.endsWith('/data.pkl') ? pickle : data])));
      try {
        timed(() => readWhole(path));
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        expect(error.message).not.toContain('\n');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(0);
  });
});

/** Of each of the next two. */
const SHORT_CASES = Number(process.env.FUZZ_CASES ?? 5000);

describe('files made by a rule', () => {
  let random = 4242;
  const next = (n: number) => {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    return Math.floor((random / 2 ** 32) * n);
  };
  const one = <T>(...of: T[]): T => of[next(of.length)] as T;

  it('whose views have any shape, strides, offset and storage: those that fit are read right, all others refused', () => {
    const path = join(root, 'views.pt');
    let [refused, right] = [0, 0];
    for (let i = 0; i < SHORT_CASES; i++) {
      const elements = one(0, 1, 6, 60, 400);
      const data = new Uint8Array(elements).map((_, at) => (at * 37) % 251);
      const shape = Array.from({ length: next(5) }, () => one(0, 1, 2, 3, 5, 2 ** 20, 2 ** 40, next(30)));
      const rows = strides(shape);
      const stride = one(
        rows,
        rows.toReversed(),
        shape.map(() => one(0, 1, 2, 7, 40, 2 ** 52, next(60))),
      );
      const offset = one(0, 0, 1, elements, next(50), 2 ** 52);
      const file = new TorchFile();
      file.save(path, pickleDict([['w', file.tensor('U8', shape, data, stride, offset)]]));
      const count = elementCount(shape);
      const last = shape.reduce((sum, n, d) => sum + (n - 1) * (stride[d] as number), offset);
      const named = stride.every(Number.isSafeInteger);
      const fits = named && count <= elements && (count === 0 || last < elements);
      try {
        const hash = timed(() => readWhole(path));
        expect(fits, JSON.stringify({ elements, shape, stride, offset })).toBe(true);
        const expected = Buffer.from({ length: count }).map((_, n) => {
          let at = offset;
          for (let dim = shape.length - 1, rest = n; dim >= 0; dim--) {
            at += (rest % (shape[dim] as number)) * (stride[dim] as number);
            rest = Math.floor(rest / (shape[dim] as number));
          }
          return data[at] as number;
        });
        expect(hash).toBe(createHash('sha256').update(`0 w U8 [${shape}]`).update(expected).digest('hex'));
        right++;
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        expect(fits, `${error.message} ${JSON.stringify({ elements, shape, stride, offset })}`).toBe(false);
        expect(error.message).not.toContain('\n');
        refused++;
      }
    }
    expect(Math.min(refused, right)).toBeGreaterThan(SHORT_CASES / 20);
  });

  it('whose directory says anything: what is read is right', () => {
    const path = join(root, 'directory.pt');
    const file = new TorchFile();
    const entries = [3, 40, 40].map((n, i): [string, PickleValue] => [
      `w${i}`,
      file.tensor('U8', [n], new Uint8Array(n).fill(i)),
    ]);
    file.save(path, pickleDict(entries));
    const good = readFileSync(path);
    const truth = readWhole(path);
    const end = good.length - 22;
    const starts: number[] = [];
    for (let at = good.readUInt32LE(end + 16); at < end; at += 46 + good.readUInt16LE(at + 28)) starts.push(at);
    /** Offset and bytes of the fields of an entry, and of the end. */
    const ENTRY = [
      [6, 2],
      [8, 2],
      [10, 2],
      [16, 4],
      [20, 4],
      [24, 4],
      [28, 2],
      [30, 2],
      [32, 2],
      [36, 2],
      [42, 4],
    ];
    const END = [
      [4, 2],
      [8, 2],
      [10, 2],
      [12, 4],
      [16, 4],
      [20, 2],
    ];
    let refused = 0;
    for (let i = 0; i < SHORT_CASES; i++) {
      const bytes = Buffer.from(good);
      for (let c = 1 + next(3); c > 0; c--) {
        const ofEnd = next(4) === 0;
        const [field = 0, size = 0] = one(...(ofEnd ? END : ENTRY));
        const at = (ofEnd ? end : one(...starts)) + field;
        const own = bytes.readUIntLE(at, size);
        const others = ofEnd ? own : good.readUIntLE(one(...starts) + field, size);
        const value = one(0, 2 ** (8 * size) - 1, own + 1, own - 1, others, others, next(good.length), next(2 ** 16));
        bytes.writeUIntLE(((value % 2 ** (8 * size)) + 2 ** (8 * size)) % 2 ** (8 * size), at, size);
      }
      writeFileSync(path, bytes);
      try {
        expect(timed(() => readWhole(path))).toBe(truth);
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        expect(error.message).not.toContain('\n');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(SHORT_CASES / 4);
  });
});

/** All entries of an archive. */
function openEntries(path: string): [string, Uint8Array][] {
  const archive = openZip(path);
  try {
    return [...archive.entries.keys()].map((name) => [name, archive.readAll(name, 1 << 24)]);
  } finally {
    archive.close();
  }
}
