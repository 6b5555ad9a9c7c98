import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  byteLengthOf,
  bytesOf,
  type Dtype,
  encodeSafetensors,
  openHfFolder,
  openSafetensors,
  saveCheckpoint,
  shardFileName,
  type TensorData,
  viewAs,
  writeFsdpConfig,
  writeShards,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type MergeOptions, mergeCheckpoint } from './merge.ts';
import { newestCheckpoint } from './newest-checkpoint.ts';

let root: string;
let base: string;
let actor: string;
let target: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'ft-merge-'));
  base = join(root, 'base');
  actor = join(root, 'actor');
  target = join(root, 'out');
  for (const dir of [base, actor]) mkdirSync(dir);
  writeFileSync(join(base, 'config.json'), JSON.stringify({ model_type: 'tiny' }));
  for (const name of ['tokenizer.json', 'preprocessor_config.json', 'generation_config.json'])
    writeFileSync(join(base, name), '{}');
});
afterEach(() => rmSync(root, { recursive: true }));

interface Weight {
  name: string;
  shape: number[];
  dtype: Dtype;
  tensor: TensorData;
}

const weight = (name: string, shape: number[], dtype: Dtype = 'F32'): Weight => {
  const bytes = new Uint8Array(byteLengthOf(dtype, shape)).map((_, i) => (i * 37 + name.length * 11) % 113);
  return { name, shape, dtype, tensor: { dtype, shape, data: viewAs(dtype, bytes) } };
};
const WEIGHTS = [weight('embed', [7, 3]), weight('norm', [2]), weight('conv', [5, 2, 2]), weight('head', [1, 4])];

async function writeActor(worldSize: number, weights = WEIGHTS, dir = actor): Promise<void> {
  await writeShards({
    dir,
    kind: 'model',
    worldSize,
    tensors: weights.map((w) => ({ name: w.name, shape: w.shape, dtype: w.dtype, read: () => w.tensor })),
  });
  writeFsdpConfig(dir, worldSize);
}

const merge = (options: Partial<MergeOptions> = {}) =>
  mergeCheckpoint({
    backend: 'fsdp',
    localDir: actor,
    hfModelPath: base,
    targetDir: target,
    dtype: 'keep',
    ...options,
  });

const fileOf = (worldSize: number, rank: number) => join(actor, shardFileName('model', worldSize, rank));

/** Writes a shard file anew, its header changed. */
function rewrite(
  path: string,
  change: (
    shards: Record<string, { offset: number; shape: number[]; dim: number }>,
    tensors: Map<string, TensorData>,
  ) => void,
  metadata: Record<string, string> = {},
): void {
  const file = openSafetensors(path);
  const tensors = new Map([...file.header.entries.keys()].map((name) => [name, file.read(name)]));
  const shards = JSON.parse(file.header.metadata.shards ?? '');
  file.close();
  change(shards, tensors);
  const all = { ...file.header.metadata, shards: JSON.stringify(shards), ...metadata };
  writeFileSync(path, Buffer.concat(encodeSafetensors(tensors, all)));
}

describe('merge', () => {
  it('joins any split of any state dict back to itself', async () => {
    const weights = fc
      .array(
        fc.tuple(
          fc.array(fc.nat(6), { minLength: 1, maxLength: 3 }),
          fc.constantFrom<Dtype>('F32', 'BF16', 'F16', 'I64'),
        ),
        {
          minLength: 1,
          maxLength: 4,
        },
      )
      .map((list) => list.map(([shape, dtype], i) => weight(`w${i}`, shape, dtype)));
    await fc.assert(
      fc.asyncProperty(
        weights,
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 300 }),
        async (list, worldSize, maxShardSize) => {
          const localDir = mkdtempSync(join(root, 'actor-'));
          await writeActor(worldSize, list, localDir);
          const result = await merge({ localDir, maxShardSize });
          expect(result).toMatchObject({ worldSize, tensors: list.length, dtype: 'keep', overflowed: 0 });
          const folder = openHfFolder(target);
          expect([...folder.names].sort()).toEqual(list.map((w) => w.name).sort());
          for (const { name, shape, dtype, tensor } of list) {
            expect([folder.shape(name), folder.dtype(name)]).toEqual([shape, dtype]);
            expect(Buffer.compare(bytesOf(folder.readRaw(name).data), bytesOf(tensor.data))).toBe(0);
          }
          folder.close();
        },
      ),
      { numRuns: 25 },
    );
  });

  it('copies the base files and casts to the dtype that its config names, bf16 without', async () => {
    await writeActor(2);
    expect((await merge({ dtype: 'auto' })).dtype).toBe('bf16');
    expect(readdirSync(target).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'preprocessor_config.json',
      'tokenizer.json',
    ]);
    writeFileSync(join(base, 'config.json'), JSON.stringify({ torch_dtype: 'float16' }));
    expect((await merge({ dtype: 'auto' })).dtype).toBe('fp16');
    const folder = openHfFolder(target);
    expect(folder.names.map((name) => folder.dtype(name))).toEqual(WEIGHTS.map(() => 'F16'));
    folder.close();
    writeFileSync(join(base, 'config.json'), JSON.stringify({ dtype: 'float8' }));
    await expect(merge({ dtype: 'auto' })).rejects.toThrow('dtype "float8"');
  });

  it("gives the tensors of Qwen's vision models their names on disk", async () => {
    writeFileSync(join(base, 'config.json'), JSON.stringify({ model_type: 'qwen2_5_vl' }));
    const names = ['model.language_model.norm.weight', 'model.visual.patch_embed.proj.weight', 'lm_head.weight'];
    await writeActor(
      2,
      names.map((name) => weight(name, [3])),
    );
    await merge();
    const folder = openHfFolder(target);
    expect([...folder.names].sort()).toEqual(['lm_head.weight', 'model.norm.weight', 'visual.patch_embed.proj.weight']);
    folder.close();
  });

  it('tells its progress', async () => {
    await writeActor(2);
    const seen: string[] = [];
    await merge({ onProgress: ({ tensor, done, total }) => seen.push(`${tensor} ${done}/${total}`) });
    expect(seen).toEqual(['embed 1/4', 'norm 2/4', 'conv 3/4', 'head 4/4']);
  });

  it.each<[string, () => Promise<void> | void, RegExp]>([
    ['a missing rank', () => rmSync(fileOf(4, 2)), /rank_2\.safetensors: missing: rank 2 of 4/],
    ['mixed world sizes', () => cpSync(fileOf(4, 0), fileOf(2, 0)), /mixed world sizes \(2, 4\)/],
    ['another world size in fsdp_config.json', () => writeFsdpConfig(actor, 2), /fsdp_config\.json: world_size is 2/],
    ['no fsdp_config.json', () => rmSync(join(actor, 'fsdp_config.json')), /fsdp_config\.json: cannot be read/],
    [
      'a truncated file',
      () => truncateSync(fileOf(4, 1), statSync(fileOf(4, 1)).size - 3),
      /rank_1\.safetensors: tensor \w+: truncated/,
    ],
    [
      'a rank that is another one',
      () => cpSync(fileOf(4, 0), fileOf(4, 1)),
      /rank_1\.safetensors: its name says rank 1 of 4, its content rank 0/,
    ],
    [
      'no shards',
      () =>
        [0, 1, 2, 3].forEach((rank) => {
          rmSync(fileOf(4, rank));
        }),
      /has no model_world_size_W_rank_R/,
    ],
    [
      'an overlap',
      () =>
        rewrite(fileOf(4, 1), (shards) => {
          shards.embed!.offset = 1;
        }),
      /rank_1\.safetensors: tensor embed: overlap/,
    ],
    [
      'a gap',
      () =>
        rewrite(fileOf(4, 1), (shards) => {
          shards.embed!.offset = 3;
        }),
      /rank_1\.safetensors: tensor embed: gap/,
    ],
    [
      'too few rows',
      () =>
        rewrite(fileOf(4, 3), (_, tensors) => {
          tensors.set('embed', weight('embed', [0, 3]).tensor);
        }),
      /tensor embed: the shards hold 6 rows of 7/,
    ],
    [
      'different whole shapes',
      () =>
        rewrite(fileOf(4, 2), (shards) => {
          shards.embed!.shape = [8, 3];
        }),
      /rank_2\.safetensors: tensor embed: .*\[8,3\]/,
    ],
    [
      'a shard of another shape',
      () =>
        rewrite(fileOf(4, 2), (_, tensors) => {
          tensors.set('embed', weight('embed', [2, 4]).tensor);
        }),
      /rank_2\.safetensors: tensor embed: a shard of shape \[2,4\]/,
    ],
    [
      'different dtypes',
      () =>
        rewrite(fileOf(4, 2), (_, tensors) => {
          tensors.set('embed', weight('embed', [2, 3], 'BF16').tensor);
        }),
      /rank_2\.safetensors: tensor embed: BF16/,
    ],
    [
      'a tensor that one rank lacks',
      () =>
        rewrite(fileOf(4, 2), (shards, tensors) => {
          tensors.delete('norm');
          delete shards.norm;
        }),
      /rank_2\.safetensors: tensor norm: missing/,
    ],
    [
      'a cut on another dim',
      () =>
        rewrite(fileOf(4, 0), (shards) => {
          shards.embed!.dim = 1;
        }),
      /tensor embed: is cut on dim 1/,
    ],
    [
      'no description of a tensor',
      () =>
        rewrite(fileOf(4, 0), (shards) => {
          delete shards.embed;
        }),
      /tensor embed: __metadata__\.shards does not say/,
    ],
  ])('refuses %s in one line, and writes nothing', async (_what, breakIt, message) => {
    await writeActor(4);
    await breakIt();
    const error = await merge().then(
      () => null,
      (e: unknown) => e,
    );
    expect(error).toBeInstanceOf(InputError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain('\n');
    expect(existsSync(target)).toBe(false);
    expect(readdirSync(root).sort()).toEqual(['actor', 'base']);
  });

  it('checks the shards against the manifest of a checkpoint', async () => {
    const { dir } = await saveCheckpoint({
      dir: join(root, 'run'),
      step: 1,
      worldSize: 2,
      actor: {
        model: WEIGHTS.map((w) => ({ name: w.name, shape: w.shape, read: () => w.tensor })),
        moments: [],
      },
      extraState: null,
      dataState: null,
      hfFiles: base,
      keep: null,
    });
    const localDir = join(dir, 'actor');
    await merge({ localDir });
    for (const inside of [dir, localDir, join(localDir, 'huggingface')])
      await expect(merge({ localDir, targetDir: inside })).rejects.toThrow('lies in the checkpoint');
    const path = join(localDir, shardFileName('model', 2, 1));
    const file = openSafetensors(path);
    const last = [...file.header.entries.values()].findLast((entry) => entry.end > entry.begin)?.name;
    file.close();
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 4;
    writeFileSync(path, bytes);
    await expect(merge({ localDir })).rejects.toThrow(`${path}: tensor ${last}: damaged`);
    expect(openHfFolder(target).names.length).toBe(WEIGHTS.length);
  });

  it('reads each byte of the shards once', async (context) => {
    const counter = '/proc/self/io';
    if (!existsSync(counter)) return context.skip(`needs ${counter}`);
    const bytesRead = () => Number(/rchar: (\d+)/.exec(readFileSync(counter, 'utf8'))?.[1]);
    const large = ['embed', 'middle', 'head'].map((name, i) => weight(name, [1001 + i, 256]));
    const { dir } = await saveCheckpoint({
      dir: join(root, 'run'),
      step: 1,
      worldSize: 3,
      actor: { model: large.map((w) => ({ name: w.name, shape: w.shape, read: () => w.tensor })), moments: [] },
      extraState: null,
      dataState: null,
      hfFiles: base,
      keep: null,
    });
    const localDir = join(dir, 'actor');
    await merge({ localDir });
    const before = bytesRead();
    await merge({ localDir });
    const read = bytesRead() - before;
    const size = [0, 1, 2].reduce(
      (sum, rank) => sum + statSync(join(localDir, shardFileName('model', 3, rank))).size,
      0,
    );
    expect(read).toBeGreaterThanOrEqual(size);
    expect(read).toBeLessThan(1.1 * size);
  });

  it('refuses to write into the base model', async () => {
    await writeActor(1);
    await expect(merge({ targetDir: base })).rejects.toThrow("lies in the base model's folder");
  });
});

describe('newest checkpoint', () => {
  it('is that of the run whose latest file was written last', async () => {
    const runs = join(root, 'runs');
    expect(newestCheckpoint(runs)).toBeNull();
    for (const [i, name] of ['p/old', 'p/new', 'q/oldest'].entries()) {
      const runDir = join(runs, name);
      mkdirSync(join(runDir, `global_step_${i + 1}`), { recursive: true });
      const latest = join(runDir, 'latest_checkpointed_iteration.txt');
      writeFileSync(latest, String(i + 1));
      const time = [2000, 3000, 1000][i]!;
      utimesSync(latest, time, time);
    }
    const runDir = join(runs, 'p/new');
    expect(newestCheckpoint(runs)).toEqual({ runDir, step: 2, dir: join(runDir, 'global_step_2') });
  });
});
