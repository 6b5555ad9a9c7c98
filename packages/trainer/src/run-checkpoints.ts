/** @file Saving and resuming a run: weights, moments, counters, sampler position. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import {
  checkpointStep,
  findLatestCheckpoint,
  type Json,
  type LoadedCheckpoint,
  listCheckpoints,
  loadCheckpoint,
  saveCheckpoint,
} from '@frame-thinker/checkpoint';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError, type Sample } from '@frame-thinker/core';
import type { PolicyWorker, WeightsState } from '@frame-thinker/worker-pool';

/** What goes on across a resume beside the weights. */
export interface RunState {
  step: number;
  /** Optimizer steps done: the position in the learning-rate schedule. */
  optimizerSteps: number;
  /** Updates skipped because the gradient was not finite, in all and in a row. */
  skippedUpdates: number;
  skippedInARow: number;
  /** Coefficient of the KL penalty in the reward, where it is used: the controller's state. */
  klCoefficient?: number;
  /** Validation before the first update, for the summary at the end. */
  before?: { accuracy: number; valid: number; frames: number; toolCalls: number; samples: number };
}

/** Identifies the rows and their order: a resumed run must read the same. */
export function fingerprint(samples: readonly Sample[]): string {
  const hash = createHash('sha256');
  for (const { uid, prompt, groundTruth, dataSource } of samples)
    hash.update(JSON.stringify([uid, prompt, groundTruth, dataSource]));
  return hash.digest('hex');
}

export interface SaveRunOptions {
  worker: PolicyWorker;
  dir: string;
  state: RunState;
  data: { seed: number; fingerprint: string };
  hfFiles: string;
  worldSize: number;
  keep: number | null;
}

export async function saveRun({ worker, dir, state, data, hfFiles, worldSize, keep }: SaveRunOptions): Promise<string> {
  const weights = await worker.weightsOut();
  const parameters = [...weights.parameters];
  const saved = await saveCheckpoint({
    dir,
    step: state.step,
    worldSize,
    actor: {
      model: parameters.map(([name, { shape, weight }]) => ({ name, shape, read: () => weight })),
      moments: parameters.map(([name, { shape, expAvg, expAvgSq }]) => ({
        name,
        shape,
        expAvg: () => expAvg,
        expAvgSq: () => expAvgSq,
      })),
    },
    extraState: { ...(state as unknown as Record<string, Json>), adamwStep: weights.step },
    dataState: { ...data, step: state.step },
    hfFiles,
    keep,
  });
  return saved.dir;
}

/** Gives the worker the checkpoint's weights and moments. */
async function restoreWeights(worker: PolicyWorker, checkpoint: LoadedCheckpoint, step: number): Promise<void> {
  const state: WeightsState = { step, parameters: new Map() };
  for (const name of checkpoint.model.names)
    state.parameters.set(name, {
      shape: checkpoint.model.shape(name),
      weight: checkpoint.model.read(name),
      expAvg: checkpoint.moments.read(`${name}.exp_avg`),
      expAvgSq: checkpoint.moments.read(`${name}.exp_avg_sq`),
    });
  await worker.weightsIn(state);
}

/** The checkpoint to go on from, by trainer.resume_mode; undefined: start anew. */
export function checkpointToResume(trainer: TrainConfig['trainer']): string | undefined {
  const { resume_mode: mode, resume_from_path: path, default_local_dir: dir } = trainer;
  if (mode === 'disable') return undefined;
  if (mode === 'auto') return findLatestCheckpoint(dir)?.dir;
  if (path === null)
    throw new InputError('trainer.resume_mode=resume_path needs trainer.resume_from_path=…/global_step_N');
  if (!existsSync(path)) throw new InputError(`${path}: no such checkpoint (trainer.resume_from_path)`);
  return path;
}

/** A damaged checkpoint's error, with the newest whole one before it. */
function offerOlder(error: InputError, dir: string): InputError {
  const older = listCheckpoints(dirname(dir)).filter(({ step }) => step < (checkpointStep(dir) ?? 0));
  const whole = older.findLast((checkpoint) => {
    try {
      loadCheckpoint(checkpoint.dir).close();
      return true;
    } catch {
      return false; // Damaged too: an older one may be whole.
    }
  });
  return new InputError(
    whole
      ? `${error.message}; the newest whole one before it: trainer.resume_mode=resume_path trainer.resume_from_path=${whole.dir}`
      : `${error.message}; none before it is whole: trainer.resume_mode=disable starts anew`,
    { cause: error },
  );
}

/** Restores weights, moments and state. @throws InputError when the checkpoint is damaged or belongs to other rows. */
export async function resumeRun({
  worker,
  dir,
  data,
}: {
  worker: PolicyWorker;
  dir: string;
  data: { seed: number; fingerprint: string };
}): Promise<RunState> {
  let checkpoint: LoadedCheckpoint;
  try {
    checkpoint = loadCheckpoint(dir);
  } catch (error) {
    throw error instanceof InputError ? offerOlder(error, dir) : error;
  }
  try {
    const saved = checkpoint.dataState as { seed: number; fingerprint: string };
    if (saved.fingerprint !== data.fingerprint || saved.seed !== data.seed)
      throw new InputError(
        `${dir}: was trained on other rows or with another data.seed; give the same data, or trainer.resume_mode=disable`,
      );
    const { adamwStep, ...state } = checkpoint.extraState as unknown as RunState & { adamwStep: number };
    await restoreWeights(worker, checkpoint, adamwStep);
    return state;
  } finally {
    checkpoint.close();
  }
}
