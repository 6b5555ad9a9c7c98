/** @file The rows of a run: files, or the rendered task, whose videos are made while the run goes on. */

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

/** Videos in the order in which a run needs them: validation, training by first use; test videos are left to `pnpm data` and `pnpm infer`. */
function renderOrder(
  dataset: SynthDataset,
  train: readonly Sample[],
  sampler: QuestionSampler,
  validateFirst: boolean,
): SynthDataset['videos'] {
  const paths: string[] = [];
  for (let step = 1; step <= sampler.stepsPerEpoch; step++)
    for (const row of sampler.rowsOf(step)) {
      const { videoPath } = train[row]!;
      if (videoPath !== undefined && !paths.includes(videoPath)) paths.push(videoPath);
    }
  const byName = new Map(dataset.videos.map((video) => [video.path.split('/').at(-1), video]));
  const training = paths.flatMap((path) => byName.get(path.split('/').at(-1)) ?? []);
  const validation = dataset.videos.filter(({ split }) => split === 'val');
  return validateFirst ? [...validation, ...training] : [...training, ...validation];
}

export function openTrainingData(
  config: TrainConfig,
  { jobs, onVideo }: { jobs: number; onVideo?: (done: number, total: number) => void },
): TrainingData {
  const { data, trainer } = config;
  const dataset = data.synth && data.train_files.length === 0 ? synthDataset(data.synth) : undefined;
  const trainFiles = dataset ? [dataset.files.train!] : data.train_files;
  const valFiles = dataset && data.val_files.length === 0 ? [dataset.files.val!] : data.val_files;
  if (trainFiles.length === 0)
    throw new InputError('data.train_files is empty and data.synth is not set: there is nothing to train on');
  const options = {
    envNameKey: config.actor_rollout_ref.rollout.agent.tool_name_key,
    allowAbsolutePaths: data.allow_absolute_paths,
  };
  const train = readSamples(trainFiles, { ...options, maxSamples: data.train_max_samples });
  const validation = readSamples(valFiles, { ...options, maxSamples: data.val_max_samples });
  const sampler = createQuestionSampler({
    rows: train.length,
    batchSize: data.train_batch_size,
    seed: data.seed,
    shuffle: data.shuffle,
  });
  if (!dataset) return { train, validation, sampler, ready: async () => {}, stop: () => {} };
  const rendering = renderVideos({
    dataset,
    order: renderOrder(dataset, train, sampler, trainer.val_before_train),
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
