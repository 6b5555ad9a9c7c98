import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { elementCount } from './dtype.ts';
import { listFiles } from './folder.ts';
import { shardRange } from './shards.ts';
import {
  findLatestCheckpoint,
  type Json,
  listCheckpoints,
  loadCheckpoint,
  openActor,
  saveCheckpoint,
  verifyCheckpoint,
  writeActorShards,
} from './training-checkpoint.ts';

interface Parameter {
  name: string;
  shape: number[];
  values: Float32Array;
}

let root: string;
let run: string;
let base: string;
afterEach(() => rmSync(root, { recursive: true }));
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'ckpt-'));
  run = join(root, 'run');
  base = join(root, 'base');
  mkdirSync(base);
  writeFileSync(join(base, 'config.json'), '{"model_type":"tiny"}');
  writeFileSync(join(base, 'tokenizer.json'), '{}');
});

const parameters = (seed = 1): Parameter[] =>
  [
    ['embed', [7, 3]],
    ['norm', [2]],
    ['conv', [5, 2, 2]],
    ['scale', []],
  ].map(([name, shape], i) => {
    const sizes = shape as number[];
    const values = Float32Array.from({ length: elementCount(sizes) }, (_, j) =>
      Math.fround(Math.sin(seed + i * 31 + j)),
    );
    return { name: name as string, shape: sizes, values };
  });

const tensorsOf = (list: Parameter[]) => ({
  model: list.map(({ name, shape, values }) => ({ name, shape, read: () => values })),
  moments: list.map(({ name, shape, values }) => ({
    name,
    shape,
    expAvg: async () => values.map((v) => v / 3),
    expAvgSq: () => values.map((v) => v * v),
  })),
});

const save = (
  step: number,
  options: { worldSize?: number; keep?: number | null; list?: Parameter[]; critic?: Parameter[] } = {},
) =>
  saveCheckpoint({
    dir: run,
    step,
    worldSize: options.worldSize ?? 1,
    actor: tensorsOf(options.list ?? parameters(step)),
    ...(options.critic ? { critic: { tensors: tensorsOf(options.critic), hfFiles: base } } : {}),
    extraState: { step, rng: [1, 2, 3] } as Json,
    dataState: { epoch: 0, position: step * 4 },
    hfFiles: base,
    keep: options.keep ?? null,
  });

function expectContent(dir: string, list: Parameter[]): void {
  const loaded = loadCheckpoint(dir);
  expectTensors(loaded, list);
  loaded.close();
}

function expectTensors(loaded: ReturnType<typeof openActor>, list: Parameter[]): void {
  expect([...loaded.model.names].sort()).toEqual(list.map((p) => p.name).sort());
  for (const { name, shape, values } of list) {
    expect(loaded.model.shape(name)).toEqual(shape);
    expect(loaded.model.read(name)).toEqual(values);
    expect(loaded.moments.read(`${name}.exp_avg`)).toEqual(values.map((v) => v / 3));
    expect(loaded.moments.read(`${name}.exp_avg_sq`)).toEqual(values.map((v) => v * v));
  }
}

/** What loading a checkpoint throws. */
function refusal(dir: string): unknown {
  try {
    loadCheckpoint(dir).close();
    return undefined;
  } catch (error) {
    return error;
  }
}

describe('shards', () => {
  it('cut rows as FSDP2: chunks of ceil(n/W), the last ones short or empty', () => {
    expect([0, 1, 2, 3].map((rank) => shardRange(37, 4, rank))).toEqual([
      { start: 0, end: 10 },
      { start: 10, end: 20 },
      { start: 20, end: 30 },
      { start: 30, end: 37 },
    ]);
    expect([0, 1, 2, 3].map((rank) => shardRange(5, 4, rank)).map(({ start, end }) => end - start)).toEqual([
      2, 2, 1, 0,
    ]);
  });
});

describe('training checkpoints', () => {
  it('have the run folder layout', async () => {
    const { dir } = await save(3, { worldSize: 2 });
    expect(readdirSync(run).sort()).toEqual(['global_step_3', 'latest_checkpointed_iteration.txt']);
    expect(listFiles(dir)).toEqual([
      'actor/extra_state_world_size_2_rank_0.json',
      'actor/extra_state_world_size_2_rank_1.json',
      'actor/fsdp_config.json',
      'actor/huggingface/config.json',
      'actor/huggingface/tokenizer.json',
      'actor/model_world_size_2_rank_0.safetensors',
      'actor/model_world_size_2_rank_1.safetensors',
      'actor/optim_world_size_2_rank_0.safetensors',
      'actor/optim_world_size_2_rank_1.safetensors',
      'data.json',
      'manifest.json',
    ]);
    expect(JSON.parse(readFileSync(join(dir, 'actor/fsdp_config.json'), 'utf8'))).toEqual({
      FSDP_version: 2,
      world_size: 2,
    });
    expect(findLatestCheckpoint(run)).toEqual({ step: 3, dir });
    const loaded = loadCheckpoint(dir);
    expect(loaded).toMatchObject({ step: 3, worldSize: 2, dataState: { epoch: 0, position: 12 } });
    expect(loaded.extraState).toEqual({ step: 3, rng: [1, 2, 3] });
    loaded.close();
  });

  it('hold a critic beside the actor, of the same form and as well guarded', async () => {
    const { dir } = await save(3, { worldSize: 2, critic: parameters(50) });
    const loaded = loadCheckpoint(dir);
    expectTensors(loaded, parameters(3));
    expectTensors({ ...loaded, ...loaded.critic! }, parameters(50));
    loaded.close();
    expect(listFiles(dir)).toContain('critic/huggingface/config.json');
    truncateSync(join(dir, 'critic/optim_world_size_2_rank_1.safetensors'), 40);
    expect(String(refusal(dir))).toContain('critic/optim_world_size_2_rank_1.safetensors');
    const plain = loadCheckpoint((await save(4)).dir);
    expect(plain.critic).toBeUndefined();
    plain.close();
  });

  it('come back whole from any world size', async () => {
    const shape = fc.array(fc.nat(6), { minLength: 0, maxLength: 3 });
    const list = fc.array(shape, { minLength: 1, maxLength: 4 }).map((shapes) =>
      shapes.map((sizes, i) => ({
        name: `p${i}`,
        shape: sizes,
        values: Float32Array.from({ length: elementCount(sizes) }, (_, j) => i + j / 8),
      })),
    );
    await fc.assert(
      fc.asyncProperty(list, fc.integer({ min: 1, max: 9 }), async (parameters, worldSize) => {
        const dir = mkdtempSync(join(root, 'actor-'));
        await writeActorShards({ dir, worldSize, ...tensorsOf(parameters) });
        const actor = openActor(dir);
        expect(actor.worldSize).toBe(worldSize);
        expectTensors(actor, parameters);
        actor.close();
      }),
      { numRuns: 25 },
    );
  });

  it('may be written by a worker, and are checked then', async () => {
    const common = {
      dir: run,
      step: 1,
      worldSize: 2,
      extraState: () => null as Json,
      dataState: null,
      hfFiles: base,
      keep: null,
    };
    const { dir } = await saveCheckpoint({
      ...common,
      // One rank after the other, as workers write them; and what one left that was killed meanwhile.
      actor: async (actorDir) => {
        for (const rank of [1, 0])
          await writeActorShards({ dir: actorDir, worldSize: 2, rank, ...tensorsOf(parameters()) });
        writeFileSync(join(actorDir, '.model_world_size_2_rank_1.safetensors.4194305.0badcafe.tmp'), 'half');
      },
    });
    expectContent(dir, parameters());
    const whole = await saveCheckpoint({ ...common, dir: join(root, 'whole'), actor: tensorsOf(parameters()) });
    expect(listFiles(dir)).toEqual(listFiles(whole.dir));
    for (const file of listFiles(dir))
      expect(readFileSync(join(dir, file))).toEqual(readFileSync(join(whole.dir, file)));
    await expect(writeActorShards({ dir, worldSize: 2, rank: 2, ...tensorsOf(parameters()) })).rejects.toThrow(
      /rank 2 of 2/,
    );
    await expect(saveCheckpoint({ ...common, step: 2, actor: async () => {} })).rejects.toThrow(
      'has no model_world_size',
    );
    expect(findLatestCheckpoint(run)?.step).toBe(1);
    expect(readdirSync(run).sort()).toEqual(['global_step_1', 'latest_checkpointed_iteration.txt']);
  });

  it('rotate: only the newest are kept, and later steps of another run are not touched', async () => {
    await save(9);
    for (const step of [1, 2, 3]) await save(step, { keep: 2 });
    expect(listCheckpoints(run).map(({ step }) => step)).toEqual([2, 3, 9]);
    expect((await save(4, { keep: 1 })).removed.map((dir) => dir.split('_').at(-1))).toEqual(['2', '3']);
    expect(findLatestCheckpoint(run)?.step).toBe(4);
  });

  it('ignore what a killed save left, and the next save removes it', async () => {
    await save(1);
    const stale = join(run, '.global_step_2.4194305.0badcafe.tmp');
    cpSync(join(run, 'global_step_1'), stale, { recursive: true });
    truncateSync(join(stale, 'actor/model_world_size_1_rank_0.safetensors'), 30);
    const alive = join(run, `.global_step_2.${process.ppid}.0badcafe.tmp`);
    mkdirSync(alive);
    mkdirSync(join(run, '.global_step_1.replaced'));
    expect(findLatestCheckpoint(run)?.step).toBe(1);
    await save(2);
    const left = readdirSync(run).filter((name) => name.startsWith('.'));
    expect(left).toEqual([alive.split('/').at(-1)]);
    expectContent(join(run, 'global_step_2'), parameters(2));
  });

  it('can be saved again in their place, and come back from a kill in between', async () => {
    await save(1, { worldSize: 4 });
    const { dir } = await save(1, { worldSize: 1, list: parameters(5) });
    expectContent(dir, parameters(5));
    renameSync(dir, join(run, '.global_step_1.replaced'));
    expect(findLatestCheckpoint(run)).toEqual({ step: 1, dir });
    expectContent(dir, parameters(5));
  });

  it('stay, with the file that names them, when a save fails', async () => {
    await save(1);
    const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
    const actor = async () => {
      throw full;
    };
    const options = { dir: run, step: 2, worldSize: 1, extraState: null, dataState: null, hfFiles: base, keep: 1 };
    await expect(saveCheckpoint({ ...options, actor })).rejects.toThrow(/global_step_2: no space left/);
    expect(findLatestCheckpoint(run)?.step).toBe(1);
    expect(readdirSync(run).sort()).toEqual(['global_step_1', 'latest_checkpointed_iteration.txt']);
    expectContent(join(run, 'global_step_1'), parameters(1));
  });

  it('say which tensor of which file a flipped bit hit', async () => {
    const { dir } = await save(1, { worldSize: 2 });
    const path = join(dir, 'actor/optim_world_size_2_rank_1.safetensors');
    const bytes = readFileSync(path);
    const {
      data_offsets: [begin],
    } = JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE())))['conv.exp_avg_sq'];
    bytes[8 + Number(bytes.readBigUInt64LE()) + begin + 5]! ^= 1;
    writeFileSync(path, bytes);
    expect(() => verifyCheckpoint(dir)).toThrow(`${path}: tensor conv.exp_avg_sq: damaged`);
    truncateSync(path, bytes.length - 1);
    expect(() => loadCheckpoint(dir)).toThrow(new RegExp(`${path}: tensor .*: truncated`));
    rmSync(path);
    expect(() => loadCheckpoint(dir)).toThrow(`${path}: missing`);
  });

  it.each([
    ['truncated anywhere', (bytes: Buffer, at: number) => bytes.subarray(0, at)],
    [
      'with one bit flipped anywhere',
      (bytes: Buffer, at: number, bit: number) => {
        const broken = Buffer.from(bytes);
        broken[at]! ^= 1 << bit;
        return broken;
      },
    ],
  ])('%s, in any file, are refused with its name', async (_, damage) => {
    const { dir } = await save(1, { worldSize: 2 });
    expectContent(dir, parameters(1));
    const place = { at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), bit: fc.nat(7) };
    for (const file of listFiles(dir)) {
      const path = join(dir, file);
      const bytes = readFileSync(path);
      // The manifest is whole without its last line end.
      const length = file === 'manifest.json' ? bytes.length - 1 : bytes.length;
      fc.assert(
        fc.property(fc.record(place), ({ at, bit }) => {
          writeFileSync(path, damage(bytes, Math.floor(at * length), bit));
          const error = refusal(dir);
          expect(error).toBeInstanceOf(InputError);
          const { message } = error as InputError;
          // What the manifest says and a file holds differ: where the manifest is damaged, either may be named.
          expect(message).toContain(file === 'manifest.json' ? dir : path);
          expect(message).not.toContain('\n');
        }),
        { numRuns: file === 'manifest.json' ? 400 : 40 },
      );
      writeFileSync(path, bytes);
    }
    expectContent(dir, parameters(1));
  });

  it('say when the file that names the latest is wrong', async () => {
    expect(findLatestCheckpoint(run)).toBeNull();
    await save(1);
    writeFileSync(join(run, 'latest_checkpointed_iteration.txt'), '12');
    expect(() => findLatestCheckpoint(run)).toThrow('names step 12');
    writeFileSync(join(run, 'latest_checkpointed_iteration.txt'), 'x1');
    expect(() => findLatestCheckpoint(run)).toThrow(InputError);
  });
});
