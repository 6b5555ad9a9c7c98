import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf, openHfFolder, PIECE_LIMIT, pieceMemory, saveCheckpoint } from '@frame-thinker/checkpoint';
import { pickleDict, pickleList } from '@frame-thinker/pickle';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type MergeOptions, mergeCheckpoint } from './merge.ts';
import { dtensor, TorchFile } from './testing/torch-file.ts';

let root: string;
let actor: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'streaming-'));
  actor = join(root, 'actor');
  mkdirSync(actor);
  mkdirSync(join(root, 'base'));
});
afterEach(() => rmSync(root, { recursive: true }));

const baseConfig = (config: object) => writeFileSync(join(root, 'base/config.json'), JSON.stringify(config));
const merge = (options: Partial<MergeOptions> = {}) =>
  mergeCheckpoint({
    backend: 'fsdp',
    localDir: actor,
    hfModelPath: join(root, 'base'),
    targetDir: join(root, 'out'),
    dtype: 'keep',
    ...options,
  });

/** Values that differ from row to row. */
const matrix = (rows: number, columns: number, seed = 1): Float32Array =>
  new Float32Array(rows * columns).map((_, i) => Math.sin(i * seed + seed));

/** Files of both ranks, each tensor cut on its dim 0 or 1 in two. */
function writeTorch(
  tensors: { name: string; rows: number; columns: number; dim?: 0 | 1; values?: Float32Array }[],
): void {
  for (const rank of [0, 1]) {
    const file = new TorchFile();
    const entries = tensors.map(({ name, rows, columns, dim = 0, values = matrix(rows, columns) }) => {
      const local = dim === 0 ? [rows / 2, columns] : [rows, columns / 2];
      const part = new Float32Array((rows * columns) / 2);
      const [height, width] = local as [number, number];
      for (let row = 0; row < height; row++) {
        const from = dim === 0 ? (rank * height + row) * columns : row * columns + rank * width;
        part.set(values.subarray(from, from + width), row * width);
      }
      return [name, dtensor(file.tensor('F32', local, bytesOf(part)), [rows, columns], dim, 2, rank)] as const;
    });
    file.save(join(actor, `model_world_size_2_rank_${rank}.pt`), pickleDict(entries, true));
  }
}

const bytesRead = () => Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
const sizeOfAll = (dir: string, ending: string): number =>
  readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);

/** Beside the tensors: the directory of each of the two files, which is looked for in the last 64 kB, and a config. */
const BESIDE = 150e3;

/** Bytes that a merge reads, by those of the files. */
async function bytesOfMerge(options: Partial<MergeOptions> = {}): Promise<number> {
  // The first merge loads modules.
  await merge(options);
  const before = bytesRead();
  await merge(options);
  return bytesRead() - before;
}

function expectOnce(read: number, size: number): void {
  expect(size).toBeGreaterThan(10 * BESIDE);
  expect(read).toBeGreaterThan(size - BESIDE);
  expect(read).toBeLessThan(size + BESIDE);
}

describe('each byte of the shards is read once', () => {
  beforeEach(({ skip }) => skip(!existsSync('/proc/self/io'), 'needs /proc/self/io'));

  it('of tensors that are cut on dim 0 and on dim 1, cast on the way', async () => {
    baseConfig({});
    writeTorch([
      { name: 'a', rows: 1000, columns: 300 },
      { name: 'b', rows: 400, columns: 1000, dim: 1 },
      { name: 'c', rows: 2, columns: 400_000, dim: 1 },
    ]);
    expectOnce(await bytesOfMerge({ dtype: 'bf16' }), sizeOfAll(actor, '.pt'));
  });

  it('of queries, keys and values that lie by turns in one tensor', async () => {
    const [heads, groups, size, hidden] = [8, 4, 64, 700];
    baseConfig({
      ...{ num_attention_heads: heads, num_key_value_heads: groups, vocab_size: 4, tie_word_embeddings: true },
    });
    const rows = ((heads + 2 * groups) * size) / 2;
    for (const rank of [0, 1]) {
      const file = new TorchFile();
      const qkv = file.tensor('F32', [rows, hidden], bytesOf(matrix(rows, hidden, rank + 1)));
      const path = join(actor, `mp_rank_0${rank}`);
      mkdirSync(path);
      file.save(
        join(path, 'model.pt'),
        pickleList(
          pickleDict(
            [
              ['embedding.word_embeddings.weight', file.tensor('F32', [2, 2], bytesOf(matrix(2, 2, rank + 3)))],
              ['decoder.layers.0.self_attention.linear_qkv.weight', qkv],
              ['decoder.final_layernorm.weight', file.tensor('F32', [2], bytesOf(matrix(1, 2)))],
            ],
            true,
          ),
        ),
      );
    }
    // Each in a file of its own, so that three are written at once.
    const options = { backend: 'megatron', maxShardSize: 1000 } as const;
    expectOnce(await bytesOfMerge(options), sizeOfAll(actor, '.pt'));
    const folder = openHfFolder(join(root, 'out'));
    const whole = [1, 2].flatMap((seed) => [...matrix(rows, hidden, seed)]);
    const group = (heads / groups + 2) * size;
    const rowsOf = (from: number, to: number) =>
      Array.from({ length: groups }, (_, g) =>
        whole.slice((g * group + from * size) * hidden, (g * group + to * size) * hidden),
      ).flat();
    for (const [name, from, to] of [
      ['q', 0, 2],
      ['k', 2, 3],
      ['v', 3, 4],
    ] as const)
      expect([...folder.read(`model.layers.0.self_attn.${name}_proj.weight`)]).toEqual(rowsOf(from, to));
    folder.close();
  });

  it('but of a transposed matrix twice: its checksum comes first', async () => {
    baseConfig({});
    const [rows, columns] = [2000, 1600];
    const file = new TorchFile();
    const local = file.tensor('F32', [rows, columns], bytesOf(matrix(rows, columns)), [1, rows]);
    file.save(join(actor, 'model_world_size_1_rank_0.pt'), pickleDict([['t', local]]));
    const [size, read] = [sizeOfAll(actor, '.pt'), await bytesOfMerge()];
    expect(read).toBeGreaterThan(size);
    expect(read).toBeLessThan(2 * size + BESIDE);
    const folder = openHfFolder(join(root, 'out'));
    const [found, stored] = [folder.read('t'), matrix(rows, columns)];
    folder.close();
    expect(found.every((value, i) => value === stored[(i % columns) * rows + Math.floor(i / columns)])).toBe(true);
  });

  it.each([
    ['experts that are transposed', [40, 150, 120], [18_000, 1, 150]],
    ['a kernel whose channels come last', [300, 30, 80], [2400, 1, 30]],
    ['the last dim first', [80, 300, 30], [1, 2400, 80]],
  ])('and of three dims in another order three times at most: %s', async (_what, shape, stride) => {
    baseConfig({});
    const file = new TorchFile();
    const local = file.tensor('F32', shape, bytesOf(matrix(7200, 100)), stride);
    file.save(join(actor, 'model_world_size_1_rank_0.pt'), pickleDict([['t', local]]));
    const [size, read] = [sizeOfAll(actor, '.pt'), await bytesOfMerge()];
    expect(read).toBeLessThan(3 * size + BESIDE);
    const folder = openHfFolder(join(root, 'out'));
    const [found, stored] = [folder.read('t'), matrix(7200, 100)];
    folder.close();
    const [rows, columns] = shape.slice(1) as [number, number];
    const placeOf = (i: number) =>
      Math.floor(i / rows / columns) * stride[0]! +
      (Math.floor(i / columns) % rows) * stride[1]! +
      (i % columns) * stride[2]!;
    expect(found.every((value, i) => value === stored[placeOf(i)])).toBe(true);
  });

  const embedding = { name: 'model.embed_tokens.weight', rows: 2000, columns: 256 };
  it.each([
    ['of a tied head with equal checksums, which is not read at all', 0, 0.5],
    ['of a tied head whose padding differs, which is compared', 1, 1],
  ])('%s', async (_what, padding, share) => {
    baseConfig({ tie_word_embeddings: true });
    const [rows, columns] = [embedding.rows, embedding.columns];
    for (const rank of [0, 1]) {
      const file = new TorchFile();
      const local = bytesOf(
        matrix(rows, columns).subarray((rank * rows * columns) / 2, ((rank + 1) * rows * columns) / 2),
      );
      const entries = [embedding.name, 'lm_head.weight'].map((name, i) => {
        const data = Buffer.concat([local, Buffer.alloc(4 * padding, i)]);
        return [name, dtensor(file.tensor('F32', [rows / 2, columns], data), [rows, columns], 0, 2, rank)] as const;
      });
      file.save(join(actor, `model_world_size_2_rank_${rank}.pt`), pickleDict(entries, true));
    }
    expectOnce(await bytesOfMerge(), share * sizeOfAll(actor, '.pt'));
    expect(openHfFolder(join(root, 'out')).names).toEqual([embedding.name]);
  });

  it("of this project's shards with a tied head", async () => {
    baseConfig({ tie_word_embeddings: true });
    const { rows, columns } = embedding;
    const tensor = (name: string) => ({ name, shape: [rows, columns], read: () => matrix(rows, columns) });
    const { dir } = await saveCheckpoint({
      dir: join(root, 'run'),
      step: 1,
      worldSize: 2,
      actor: { model: ['lm_head.weight', 'middle', embedding.name].map(tensor), moments: [] },
      extraState: null,
      dataState: null,
      hfFiles: join(root, 'base'),
      keep: null,
    });
    const localDir = join(dir, 'actor');
    expectOnce(await bytesOfMerge({ localDir }), sizeOfAll(localDir, '.safetensors'));
  });
});

describe('bytes of tensors that are held at once', () => {
  it('stay below the limit, however large a tensor is', async () => {
    baseConfig({});
    writeTorch([
      { name: 'tall', rows: 5_000_000, columns: 1 },
      { name: 'wide', rows: 2, columns: 2_500_000, dim: 1 },
    ]);
    const ways: Partial<MergeOptions>[] = [{}, { verify: true }, { dtype: 'bf16' }, { dtype: 'fp16' }];
    for (const options of ways) {
      pieceMemory();
      await merge(options);
      const { held, peak } = pieceMemory();
      expect(peak).toBeGreaterThan(4e6);
      expect(peak).toBeLessThanOrEqual(PIECE_LIMIT);
      // What stays is one workspace for the thread.
      expect(held).toBeLessThan(7e6);
    }
  });

  it('and what is held in fact is what is counted', async () => {
    baseConfig({});
    writeTorch([{ name: 'tall', rows: 5_000_000, columns: 1 }]);
    const { setFlagsFromString } = await import('node:v8');
    const { runInNewContext } = await import('node:vm');
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    await merge({ dtype: 'fp16' });
    collect();
    const before = process.memoryUsage();
    let most = 0;
    await merge({
      dtype: 'fp16',
      onBytes: () => {
        collect();
        const { arrayBuffers, heapUsed } = process.memoryUsage();
        most = Math.max(most, arrayBuffers - before.arrayBuffers + heapUsed - before.heapUsed);
      },
    });
    expect(most).toBeLessThan(PIECE_LIMIT);
  });
});
