/** @file The rows of a run: files, or the rendered task, whose videos are made while the run goes on. */

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { prepareSynth, type Rendering, renderVideos, type SynthDataset } from '@frame-thinker/benchmark';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError, type Sample } from '@frame-thinker/core';
import { createQuestionSampler, type QuestionSampler } from './question-sampler.ts';
import { readSamples } from './samples.ts';

export interface TrainingData {
  train: Sample[];
  validation: Sample[];
  sampler: QuestionSampler;
  /** Resolves when the videos of these rows are on disk. */
  ready(samples: readonly Sample[]): Promise<void>;
  /** The rendering in the background, when there is one. */
  rendering?: Rendering;
  /** Data file of the test split of the rendered task. */
  testFile?: string;
  stop(): void;
}

/** Where the rendered task lies. */
export const SYNTH_ROOT = 'data/synth';

export function synthDataset(synth: NonNullable<TrainConfig['data']['synth']>, root = SYNTH_ROOT): SynthDataset {
  return prepareSynth({
    seed: synth.seed,
    root,
    splits: {
      val: { videos: synth.val_videos, questionsPerVideo: synth.val_questions },
      train: { videos: synth.train_videos, questionsPerVideo: synth.train_questions },
      test: { videos: synth.test_videos, questionsPerVideo: synth.test_questions },
    },
  });
}

/** The rendered task's videos in the order in which a run needs them: validation, then training by first use. */
function renderOrder(
  dataset: SynthDataset,
  rows: { train: readonly Sample[]; validation: readonly Sample[] },
  sampler: QuestionSampler,
  validateFirst: boolean,
): SynthDataset['videos'] {
  const steps = Array.from({ length: sampler.stepsPerEpoch }, (_, i) => sampler.rowsOf(i + 1));
  const training = steps.flat().map((row) => rows.train[row]!);
  const needed = validateFirst ? [...rows.validation, ...training] : [...training, ...rows.validation];
  const byPath = new Map(dataset.videos.map((video) => [resolve(video.path), video]));
  const paths = new Set(needed.flatMap(({ videoPath }) => (videoPath === undefined ? [] : [videoPath])));
  return [...paths].flatMap((path) => byPath.get(path) ?? []);
}

/** A video that is not there would only show as decode errors in the middle of a run. */
function refuseMissingVideos(samples: readonly Sample[], rendered: ReadonlySet<string>): void {
  const paths = new Set(samples.flatMap(({ videoPath }) => (videoPath === undefined ? [] : [videoPath])));
  const missing = [...paths].filter((path) => !rendered.has(path) && !existsSync(path));
  if (missing.length > 0)
    throw new InputError(
      `${missing[0]}: no such video${missing.length > 1 ? ` (and ${missing.length - 1} others)` : ''}; the rows of the data files name it`,
    );
}

export function openTrainingData(
  config: TrainConfig,
  { jobs, onVideo }: { jobs: number; onVideo?: (done: number, total: number) => void },
): TrainingData {
  const { data, trainer } = config;
  const dataset = data.synth ? synthDataset(data.synth) : undefined;
  if (data.train_files.length === 0)
    throw new InputError('data.train_files is empty and data.synth is not set: there is nothing to train on');
  const options = {
    envNameKey: config.actor_rollout_ref.rollout.agent.tool_name_key,
    allowAbsolutePaths: data.allow_absolute_paths,
  };
  const train = readSamples(data.train_files, { ...options, maxSamples: data.train_max_samples });
  const validation = readSamples(data.val_files, { ...options, maxSamples: data.val_max_samples });
  const sampler = createQuestionSampler({
    rows: train.length,
    batchSize: data.train_batch_size,
    seed: data.seed,
    shuffle: data.shuffle,
  });
  refuseMissingVideos([...train, ...validation], new Set(dataset?.videos.map(({ path }) => resolve(path))));
  if (!dataset) return { train, validation, sampler, ready: async () => {}, stop: () => {} };
  const rendering = renderVideos({
    dataset,
    order: renderOrder(dataset, { train, validation }, sampler, trainer.val_before_train),
    jobs,
    ...(onVideo ? { onVideo } : {}),
  });
  return {
    train,
    validation,
    sampler,
    rendering,
    testFile: dataset.files.test!,
    ready: async (samples) => {
      await Promise.all(
        samples.map(({ videoPath }) => (videoPath === undefined ? undefined : rendering.ready(videoPath))),
      );
    },
    stop: () => rendering.stop(),
  };
}
