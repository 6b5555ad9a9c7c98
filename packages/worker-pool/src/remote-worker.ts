/** @file The protocol's methods as typed calls on one worker process. */
import type { TensorData } from '@frame-thinker/checkpoint';
import type {
  AdamWOptions,
  Cotangents,
  Group,
  LogProbs,
  SamplingOptions,
  Trajectory,
  UpdateResult,
} from '@frame-thinker/core';
import type { JsonObject } from './frames.ts';
import type { Answer, WorkerConnection } from './transport.ts';
import type { Capabilities, ForwardOptions, Health, ScoreOptions, WorkerBatch, WorkerInit } from './types.ts';
import {
  decodeAligned,
  decodeLogProbs,
  decodeTrajectories,
  encodeAligned,
  encodeBatch,
  encodeCotangents,
  encodeGroups,
  fromWire,
  toWire,
} from './wire.ts';

type NamedTensor = readonly [string, TensorData];

export class RemoteWorker {
  readonly process: WorkerConnection;
  constructor(process: WorkerConnection) {
    this.process = process;
  }

  #call(method: string, params: object = {}, tensors: NamedTensor[] = []): Promise<Answer> {
    return this.process.call(method, params as JsonObject, tensors);
  }

  async init(init: WorkerInit): Promise<Capabilities> {
    return fromWire((await this.#call('init', toWire(init))).result);
  }

  async forward(batch: WorkerBatch, options: ForwardOptions): Promise<LogProbs> {
    const { params, tensors } = encodeBatch(batch);
    const answer = await this.#call('forward', { batch: params, ...toWire(options) }, tensors);
    return decodeLogProbs(answer.tensors, lengthsOf(batch));
  }

  async backward(batch: WorkerBatch, cotangents: Cotangents, options: ScoreOptions): Promise<LogProbs> {
    const { params, tensors } = encodeBatch(batch);
    const answer = await this.#call('backward', { batch: params, ...toWire(options) }, [
      ...tensors,
      ...encodeCotangents(cotangents),
    ]);
    return decodeLogProbs(answer.tensors, lengthsOf(batch));
  }

  async values(batch: WorkerBatch): Promise<Float32Array[]> {
    const { params, tensors } = encodeBatch(batch);
    const answer = await this.#call('forward', { batch: params }, tensors);
    return decodeAligned(answer.tensors, 'values', lengthsOf(batch));
  }

  async backwardValues(batch: WorkerBatch, dValues: readonly Float32Array[]): Promise<Float32Array[]> {
    const { params, tensors } = encodeBatch(batch);
    const answer = await this.#call('backward', { batch: params }, [...tensors, encodeAligned('d_values', dValues)]);
    return decodeAligned(answer.tensors, 'values', lengthsOf(batch));
  }

  async applyUpdate(options: AdamWOptions): Promise<UpdateResult> {
    // JSON has no Infinity and no NaN: null means no clipping, and a norm that was not finite.
    const maxNorm = Number.isFinite(options.maxNorm) ? options.maxNorm : null;
    const { result } = await this.#call('apply_update', toWire({ ...options, maxNorm }));
    const { gradNorm, applied } = fromWire<{ gradNorm: number | null; applied: boolean }>(result);
    return { gradNorm: gradNorm ?? Number.NaN, applied };
  }

  async zeroGradients(): Promise<void> {
    await this.#call('zero_gradients');
  }

  /** Has the worker write its gradient sums, cut into as many parts as there are paths (gradient-files.ts). */
  async writeGradients(paths: readonly string[]): Promise<void> {
    await this.#call('gradients_out', { paths });
  }

  /** Has the worker add a part's files in the order given, into the file `path`. */
  async addGradients(paths: readonly string[], path: string): Promise<void> {
    await this.#call('gradients_add', { paths, path });
  }

  /** Has the worker replace its gradient sums by what the files of all parts hold. */
  async readGradients(paths: readonly string[]): Promise<void> {
    await this.#call('gradients_in', { paths });
  }

  /** Has the worker write its shard of weights and moments. Resolves to AdamW's step count. */
  async save(path: string, shard: { rank: number; worldSize: number }): Promise<number> {
    return (await this.#call('save', { path, ...toWire(shard) })).result.step as number;
  }

  /** Has the worker take weights and moments from a checkpoint's actor folder. */
  async load(path: string, { step }: { step: number }): Promise<void> {
    await this.#call('load', { path, step });
  }

  /** Calls `onGroup` with each group's index and trajectories as it finishes. */
  async rollout(
    groups: readonly Group[],
    sampling: SamplingOptions,
    onGroup: (group: number, trajectories: Trajectory[]) => void,
  ): Promise<void> {
    const { params, tensors } = encodeGroups(groups);
    await this.process.call('rollout', { ...params, sampling: toWire(sampling) }, tensors, (partial, received) =>
      onGroup(partial.group as number, decodeTrajectories(partial, received)),
    );
  }

  async exportTo(directory: string): Promise<void> {
    await this.#call('export', { path: directory });
  }

  async health(): Promise<Health> {
    return fromWire((await this.#call('health')).result);
  }
}

function lengthsOf(batch: WorkerBatch): number[] {
  return batch.trajectories.map((row) => row.ids.length);
}
