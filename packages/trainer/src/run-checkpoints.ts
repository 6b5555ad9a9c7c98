/** @file Saving and resuming a run: weights, moments, counters, sampler position. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
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
import type { CriticWorker, PolicyWorker } from '@frame-thinker/worker-pool';

/** How far the updates of one model are. */
export interface UpdateCounts {
  /** Optimizer steps done: the position in the learning-rate schedule. */
  optimizerSteps: number;
  /** Updates skipped because the gradient was not finite, in all and in a row. */
  skippedUpdates: number;
  skippedInARow: number;
}

/** What goes on across a resume beside the weights; the counts are the policy's. */
export interface RunState extends UpdateCounts {
  step: number;
  critic?: UpdateCounts;
  /** Batches that were taken from the data, where that is not one a step (algorithm.filter_groups). */
  batchesDrawn?: number;
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
  critic?: { worker: CriticWorker; hfFiles: string } | undefined;
  dir: string;
  state: RunState;
  data: { seed: number; fingerprint: string };
  hfFiles: string;
  worldSize: number;
  keep: number | null;
}

export async function saveRun(options: SaveRunOptions): Promise<string> {
  const { worker, critic, dir, state, data, hfFiles, worldSize, keep } = options;
  const steps = { actor: 0, critic: 0 };
  const saved = await saveCheckpoint({
    dir,
    step: state.step,
    worldSize,
    actor: async (folder) => {
      steps.actor = await worker.saveTo(folder, { worldSize });
    },
    ...(critic
      ? {
          critic: {
            tensors: async (folder: string) => {
              steps.critic = await critic.worker.saveTo(folder, { worldSize });
            },
            hfFiles: critic.hfFiles,
          },
        }
      : {}),
    extraState: () => ({
      ...(state as unknown as Record<string, Json>),
      adamwStep: steps.actor,
      ...(critic ? { criticAdamwStep: steps.critic } : {}),
    }),
    dataState: {
      ...data,
      step: state.step,
      ...(state.batchesDrawn === undefined ? {} : { batchesDrawn: state.batchesDrawn }),
    },
    hfFiles,
    keep,
  });
  return saved.dir;
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

/** @throws InputError when it is damaged, with the newest whole one before it */
export function openCheckpoint(dir: string): LoadedCheckpoint {
  try {
    return loadCheckpoint(dir);
  } catch (error) {
    throw error instanceof InputError ? offerOlder(error, dir) : error;
  }
}

/** Restores weights, moments and state. @throws InputError when the checkpoint is damaged or belongs to other rows. */
export async function resumeRun({
  worker,
  critic,
  dir,
  data,
}: {
  worker: PolicyWorker;
  critic?: CriticWorker | undefined;
  dir: string;
  data: { seed: number; fingerprint: string };
}): Promise<RunState> {
  const checkpoint = openCheckpoint(dir);
  try {
    const saved = checkpoint.dataState as { seed: number; fingerprint: string };
    if (saved.fingerprint !== data.fingerprint || saved.seed !== data.seed)
      throw new InputError(
        `${dir}: was trained on other rows or with another data.seed; give the same data, or trainer.resume_mode=disable`,
      );
    const { adamwStep, criticAdamwStep, ...state } = checkpoint.extraState as unknown as RunState & {
      adamwStep: number;
      criticAdamwStep?: number;
    };
    await worker.loadFrom(join(dir, 'actor'), { step: adamwStep });
    if (critic) {
      if (!checkpoint.critic || criticAdamwStep === undefined)
        throw new InputError(
          `${dir}: holds no critic, which this configuration trains; give trainer.resume_mode=disable`,
        );
      await critic.loadFrom(join(dir, 'critic'), { step: criticAdamwStep });
    }
    return state;
  } finally {
    checkpoint.close();
  }
}
