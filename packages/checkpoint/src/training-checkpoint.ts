/** @file Training checkpoints: `<run>/global_step_N/`, sharded as FSDP2 does, with a manifest; rotation; the latest. */
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { InputError, InvariantError, writeFileAtomic } from '@frame-thinker/core';
import { recoverFolder, removeFolder, removeStale, writeFolderAtomic } from './folder.ts';
import { copyModelFiles, readJsonFile } from './hf-folder.ts';
import { MANIFEST, readManifest, verifyManifest, writeManifest } from './manifest.ts';
import { readTextFile } from './regular-file.ts';
import { FSDP_CONFIG, openShards, type ShardedTensors, shardFileName, writeFsdpConfig, writeShards } from './shards.ts';
import type { TensorSource } from './tensor-source.ts';

export const LATEST_FILE = 'latest_checkpointed_iteration.txt';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** AdamW's moments of one parameter, float32, of the parameter's shape. */
export interface MomentSource {
  readonly name: string;
  readonly shape: readonly number[];
  expAvg(): Float32Array | Promise<Float32Array>;
  expAvgSq(): Float32Array | Promise<Float32Array>;
}

export interface ActorTensors {
  model: Iterable<TensorSource>;
  moments: Iterable<MomentSource>;
}

export interface SaveCheckpointOptions {
  /** The run folder. */
  dir: string;
  step: number;
  worldSize: number;
  /** Weights and moments, or a function that has a worker write them into the folder it is given (writeActorShards). */
  actor: ActorTensors | ((actorDir: string) => Promise<void>);
  /** Weights and moments of the critic, where there is one: `critic/` beside `actor/`, of the same form. */
  critic?: {
    tensors: ActorTensors | ((criticDir: string) => Promise<void>);
    /** Folder whose config, tokenizer and processor files go to critic/huggingface/. */
    hfFiles: string;
  };
  /** Scheduler, KL controller, counters, random state: the same file for every rank. A function is asked when the tensors are written. */
  extraState: Json | (() => Json);
  /** Sampler position: data.json. */
  dataState: Json;
  /** Folder whose config, tokenizer and processor files go to actor/huggingface/. */
  hfFiles: string;
  /** max_actor_ckpt_to_keep; null keeps all. Later steps than this one are left alone. */
  keep: number | null;
}

export interface SavedCheckpoint {
  /** `<run>/global_step_N`. */
  dir: string;
  bytes: number;
  /** Older checkpoints that rotation removed. */
  removed: string[];
}

export interface LoadedCheckpoint {
  dir: string;
  step: number;
  worldSize: number;
  model: ShardedTensors;
  /** Names end in `.exp_avg` and `.exp_avg_sq`. */
  moments: ShardedTensors;
  critic: Pick<OpenedActor, 'model' | 'moments'> | undefined;
  extraState: Json;
  dataState: Json;
  close(): void;
}

const extraStateName = (worldSize: number, rank: number) => `extra_state_world_size_${worldSize}_rank_${rank}.json`;
const stepOf = (name: string): number | null => {
  const match = /^global_step_(\d+)$/.exec(name);
  return match ? Number(match[1]) : null;
};

/** The step that a checkpoint folder's name says; null when it has another name. */
export const checkpointStep = (dir: string): number | null => stepOf(basename(dir));

function* momentTensors(moments: Iterable<MomentSource>): Iterable<TensorSource> {
  for (const moment of moments) {
    const { name, shape } = moment;
    yield { name: `${name}.exp_avg`, shape, read: () => moment.expAvg() };
    yield { name: `${name}.exp_avg_sq`, shape, read: () => moment.expAvgSq() };
  }
}

/**
 * Writes the model and optimizer shards of all ranks and fsdp_config.json, one tensor in memory at a time.
 * With `rank` the two shards of that rank alone; rank 0 writes fsdp_config.json too.
 */
export async function writeActorShards(
  options: { dir: string; worldSize: number; rank?: number | undefined } & ActorTensors,
): Promise<void> {
  const { dir, worldSize, rank, model, moments } = options;
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 0 && rank < worldSize))
    throw new InputError(`${dir}: a shard of rank ${rank} of ${worldSize}: ranks are 0 to ${worldSize - 1}`);
  mkdirSync(dir, { recursive: true });
  await writeShards({ dir, kind: 'model', worldSize, rank, tensors: model });
  await writeShards({ dir, kind: 'optim', worldSize, rank, tensors: momentTensors(moments) });
  if ((rank ?? 0) === 0) writeFsdpConfig(dir, worldSize);
}

/** The files that writeActorShards writes for a rank. */
export const actorFileNames = (worldSize: number, rank: number): string[] => [
  shardFileName('model', worldSize, rank),
  shardFileName('optim', worldSize, rank),
  ...(rank === 0 ? [FSDP_CONFIG] : []),
];

export interface OpenedActor {
  worldSize: number;
  model: ShardedTensors;
  moments: ShardedTensors;
  close(): void;
}

/** Opens weights and moments of an actor's or a critic's folder. @throws InputError naming file and tensor. */
export function openActor(actorDir: string): OpenedActor {
  const model = openShards(actorDir, 'model');
  try {
    const moments = openShards(actorDir, 'optim');
    const close = () => {
      model.close();
      moments.close();
    };
    return { worldSize: model.worldSize, model, moments, close };
  } catch (error) {
    model.close();
    throw error;
  }
}

/** Shards of weights and moments, checked to be whole, and the files of the model's folder beside them. */
async function fillModelFolder(
  dir: string,
  { worldSize, tensors, hfFiles }: { worldSize: number; tensors: SaveCheckpointOptions['actor']; hfFiles: string },
): Promise<void> {
  mkdirSync(join(dir, 'huggingface'), { recursive: true });
  if (typeof tensors === 'function') await tensors(dir);
  else await writeActorShards({ dir, worldSize, ...tensors });
  // Of a worker that was killed while it wrote, and replaced.
  removeStale(dir, () => true);
  const opened = openActor(dir);
  opened.close();
  if (opened.worldSize !== worldSize)
    throw new InvariantError(`${dir}: shards of world size ${opened.worldSize} were written, not ${worldSize}`);
  copyModelFiles(hfFiles, join(dir, 'huggingface'));
}

/**
 * Saves `<run>/global_step_N` whole or not at all, then names it in latest_checkpointed_iteration.txt, then rotates.
 * What a killed save left behind is removed.
 * @throws InputError when the disk is full or the place is not writable; older checkpoints stay.
 */
export async function saveCheckpoint(options: SaveCheckpointOptions): Promise<SavedCheckpoint> {
  const { dir, step, worldSize, actor, keep } = options;
  if (keep !== null && !(Number.isInteger(keep) && keep > 0))
    throw new InvariantError(`saveCheckpoint: keep ${keep} is neither null nor a positive number`);
  removeStale(dir, (name) => stepOf(name) !== null || name === LATEST_FILE);
  const target = join(dir, `global_step_${step}`);
  const bytes = await writeFolderAtomic(target, async (temporary) => {
    const actorDir = join(temporary, 'actor');
    await fillModelFolder(actorDir, { worldSize, tensors: actor, hfFiles: options.hfFiles });
    if (options.critic) await fillModelFolder(join(temporary, 'critic'), { worldSize, ...options.critic });
    const extraState = `${JSON.stringify(typeof options.extraState === 'function' ? options.extraState() : options.extraState, null, 2)}\n`;
    for (let rank = 0; rank < worldSize; rank++)
      writeFileSync(join(actorDir, extraStateName(worldSize, rank)), extraState);
    writeFileSync(join(temporary, 'data.json'), `${JSON.stringify(options.dataState, null, 2)}\n`);
    return writeManifest(temporary, step);
  });
  writeFileAtomic(join(dir, LATEST_FILE), `${step}\n`);
  return { dir: target, bytes, removed: keep === null ? [] : rotate(dir, step, keep) };
}

/** Removes all but the newest `keep` checkpoints up to `step`. */
function rotate(dir: string, step: number, keep: number): string[] {
  const older = listCheckpoints(dir).filter((checkpoint) => checkpoint.step <= step);
  const removed = older.slice(0, Math.max(0, older.length - keep)).map((checkpoint) => checkpoint.dir);
  for (const folder of removed) removeFolder(folder);
  return removed;
}

/** Checks every file against the manifest. @throws InputError naming the file, and the tensor where it can be told. */
export function verifyCheckpoint(dir: string): void {
  if (!recoverFolder(dir)) throw new InputError(`${dir}: no such checkpoint`);
  verifyManifest(dir);
}

/**
 * Opens `<run>/global_step_N`; every file is checked against the manifest first unless `verify` is false.
 * @throws InputError naming file and tensor.
 */
export function loadCheckpoint(dir: string, options: { verify?: boolean } = {}): LoadedCheckpoint {
  if (options.verify ?? true) verifyCheckpoint(dir);
  else if (!recoverFolder(dir)) throw new InputError(`${dir}: no such checkpoint`);
  const { step } = readManifest(dir);
  const named = checkpointStep(dir);
  if (named !== null && named !== step)
    throw new InputError(`${join(dir, MANIFEST)}: is of step ${step}, but the folder's name says ${named}`);
  const actorDir = join(dir, 'actor');
  const { worldSize, model, moments, close: closeActor } = openActor(actorDir);
  let critic: OpenedActor | undefined;
  const close = () => {
    closeActor();
    critic?.close();
  };
  try {
    const criticDir = join(dir, 'critic');
    if (existsSync(criticDir)) critic = openActor(criticDir);
    const extraState = readJsonFile(join(actorDir, extraStateName(worldSize, 0))) as Json;
    const dataState = readJsonFile(join(dir, 'data.json')) as Json;
    return { dir, step, worldSize, model, moments, critic, extraState, dataState, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * The checkpoint that latest_checkpointed_iteration.txt names; null when there is no such file.
 * @throws InputError when the file is damaged or names a checkpoint that is not there.
 */
export function findLatestCheckpoint(runDir: string): { step: number; dir: string } | null {
  const path = join(runDir, LATEST_FILE);
  if (!existsSync(path)) return null;
  const text = readTextFile(path).trim();
  const steps = listCheckpoints(runDir).map(({ step }) => step);
  const advice = steps.length > 0 ? `write one of ${steps.join(', ')} into it` : 'remove it to start anew';
  if (!/^\d+$/.test(text))
    throw new InputError(`${path}: holds ${JSON.stringify(text.slice(0, 40))}, not a step number; ${advice}`);
  const dir = join(runDir, `global_step_${text}`);
  if (!recoverFolder(dir)) throw new InputError(`${path}: names step ${text}, but ${dir} is not there; ${advice}`);
  return { step: Number(text), dir };
}

/** All checkpoints of a run, oldest first. */
export function listCheckpoints(runDir: string): { step: number; dir: string }[] {
  if (!existsSync(runDir)) return [];
  return readdirSync(runDir)
    .map((name) => ({ step: stepOf(name) ?? -1, dir: join(runDir, name) }))
    .filter(({ step, dir }) => step >= 0 && statSync(dir).isDirectory())
    .sort((a, b) => a.step - b.step);
}
