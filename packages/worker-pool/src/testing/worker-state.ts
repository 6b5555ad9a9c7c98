/** @file A worker's weights and moments in memory: read from the folder that it saves, given as one that it loads. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ActorTensors, openActor, writeActorShards } from '@frame-thinker/checkpoint';
import type { TrainedWorker } from '../types.ts';

export interface ParameterState {
  shape: readonly number[];
  weight: Float32Array;
  expAvg: Float32Array;
  expAvgSq: Float32Array;
}

export interface WorkerState {
  /** AdamW's step count. */
  step: number;
  parameters: Map<string, ParameterState>;
}

export function readState(directory: string, step: number): WorkerState {
  const { model, moments, close } = openActor(directory);
  try {
    const one = (name: string): ParameterState => ({
      ...{ shape: model.shape(name), weight: model.read(name) },
      ...{ expAvg: moments.read(`${name}.exp_avg`), expAvgSq: moments.read(`${name}.exp_avg_sq`) },
    });
    return { step, parameters: new Map(model.names.map((name) => [name, one(name)])) };
  } finally {
    close();
  }
}

export function actorTensors({ parameters }: WorkerState): ActorTensors {
  const all = [...parameters];
  return {
    model: all.map(([name, { shape, weight }]) => ({ name, shape, read: () => weight })),
    moments: all.map(([name, { shape, expAvg, expAvgSq }]) => ({
      ...{ name, shape },
      expAvg: () => expAvg,
      expAvgSq: () => expAvgSq,
    })),
  };
}

async function inFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'ft-state-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const stateOf = (worker: Pick<TrainedWorker, 'saveTo'>): Promise<WorkerState> =>
  inFolder(async (folder) => readState(folder, await worker.saveTo(folder, { worldSize: 1 })));

export const giveState = (worker: Pick<TrainedWorker, 'loadFrom'>, state: WorkerState): Promise<void> =>
  inFolder(async (folder) => {
    await writeActorShards({ dir: folder, worldSize: 1, ...actorTensors(state) });
    await worker.loadFrom(folder, { step: state.step });
  });
