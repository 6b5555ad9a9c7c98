/** @file Weights and moments as a checkpoint's actor folder, where the controller reads or writes it. */
import { type ActorTensors, openActor } from '@frame-thinker/checkpoint';
import type { WeightsState } from './types.ts';

/** A state as the checkpoint takes it; each array is asked for when it is written. */
export function actorTensors({ parameters }: WeightsState): ActorTensors {
  const all = [...parameters];
  return {
    model: all.map(([name, state]) => ({ name, shape: state.shape, read: () => state.weight })),
    moments: all.map(([name, state]) => ({
      ...{ name, shape: state.shape },
      expAvg: () => state.expAvg,
      expAvgSq: () => state.expAvgSq,
    })),
  };
}

/** @throws InputError naming file and tensor */
export function readState(directory: string, step: number): WeightsState {
  const { model, moments, close } = openActor(directory);
  try {
    const one = (name: string) => ({
      ...{ shape: model.shape(name), weight: model.read(name) },
      ...{ expAvg: moments.read(`${name}.exp_avg`), expAvgSq: moments.read(`${name}.exp_avg_sq`) },
    });
    return { step, parameters: new Map(model.names.map((name) => [name, one(name)])) };
  } finally {
    close();
  }
}
