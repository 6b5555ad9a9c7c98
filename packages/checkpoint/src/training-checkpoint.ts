/** @file Training checkpoints: `<run>/global_step_N/`, sharded on dim 0 as FSDP2 does, with a manifest. */
import { InvariantError } from '@frame-thinker/core';
import type { Dtype, TensorData } from './dtype.ts';
import type { TensorSource } from './hf-folder.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** AdamW's moments of one parameter, float32, of the parameter's shape. */
export interface MomentSource {
  readonly name: string;
  readonly shape: readonly number[];
  expAvg(): Float32Array | Promise<Float32Array>;
  expAvgSq(): Float32Array | Promise<Float32Array>;
}

export interface ActorShards {
  /** The actor folder to write into. */
  dir: string;
  worldSize: number;
  model: Iterable<TensorSource>;
  moments: Iterable<MomentSource>;
}

export interface SaveCheckpointOptions {
  /** The run folder. */
  dir: string;
  step: number;
  worldSize: number;
  /** Weights and moments, or a function that has a worker write them into the folder it is given (writeActorShards). */
  actor: { model: Iterable<TensorSource>; moments: Iterable<MomentSource> } | ((actorDir: string) => Promise<void>);
  /** Scheduler, KL controller, counters, random state: extra_state_world_size_W_rank_R.json, the same for every rank. */
  extraState: Json;
  /** Sampler position: data.json. */
  dataState: Json;
  /** Folder whose config, tokenizer and processor files go to actor/huggingface/. */
  hfFiles: string;
  /** max_actor_ckpt_to_keep; null keeps all. */
  keep: number | null;
}

export interface SavedCheckpoint {
  dir: string;
  bytes: number;
  /** Folders that rotation removed. */
  removed: string[];
}

/** Whole tensors put together from the shards of all ranks, one at a time. */
export interface ShardedTensors {
  readonly names: readonly string[];
  shape(name: string): readonly number[];
  dtype(name: string): Dtype;
  read(name: string): Float32Array;
  readRaw(name: string): TensorData;
  close(): void;
}

export interface LoadedCheckpoint {
  dir: string;
  step: number;
  worldSize: number;
  model: ShardedTensors;
  /** Names end in `.exp_avg` and `.exp_avg_sq`. */
  moments: ShardedTensors;
  extraState: Json;
  dataState: Json;
  close(): void;
}

export async function writeActorShards(_options: ActorShards): Promise<void> {
  throw new InvariantError('writeActorShards: not written yet');
}

export async function saveCheckpoint(_options: SaveCheckpointOptions): Promise<SavedCheckpoint> {
  throw new InvariantError('saveCheckpoint: not written yet');
}

/**
 * Opens `<run>/global_step_N`. Verified against its manifest first unless `verify` is false.
 * @throws InputError naming file and tensor.
 */
export async function loadCheckpoint(_dir: string, _options?: { verify?: boolean }): Promise<LoadedCheckpoint> {
  throw new InvariantError('loadCheckpoint: not written yet');
}

/** Opens only weights and moments of an actor folder. */
export function openActor(_actorDir: string): { worldSize: number; model: ShardedTensors; moments: ShardedTensors } {
  throw new InvariantError('openActor: not written yet');
}

/** The checkpoint that latest_checkpointed_iteration.txt names; null when there is none. */
export function findLatestCheckpoint(_runDir: string): { step: number; dir: string } | null {
  throw new InvariantError('findLatestCheckpoint: not written yet');
}

/** Checks every file against the manifest. @throws InputError naming the file, and the tensor where it can be told. */
export async function verifyCheckpoint(_dir: string): Promise<void> {
  throw new InvariantError('verifyCheckpoint: not written yet');
}
