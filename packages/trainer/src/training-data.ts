/** @file The rows of a run: files, or the rendered task, whose videos are made while the run goes on. */

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { environmentNames } from '@frame-thinker/agent-env';
import { prepareSynth, type Rendering, renderVideos, type SynthDataset } from '@frame-thinker/benchmark';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError, type Sample } from '@frame-thinker/core';
import { loadProcessor, type Processor } from '@frame-thinker/qwen-vl';
import { countReasons } from './data-files.ts';
import { checkPrompts } from './prompt-check.ts';
import { createQuestionSampler, type QuestionSampler } from './question-sampler.ts';
import { type DataRow, readRows, rowOptionsOf } from './samples.ts';
import { VideoFactsBook } from './video-facts.ts';
import { checkModelFolder, regimesOf } from './worker-setup.ts';

export interface TrainingData {
  train: Sample[];
  validation: Sample[];
  sampler: QuestionSampler;
  /** Resolves when the videos of these rows are on disk; says where rows and files disagree. */
  ready(samples: readonly Sample[]): Promise<void>;
  /** The rendering in the background, when there is one. */
  rendering?: Rendering;
  /** Data file of the rendered task's test split, when that task is trained on. */
  testFile?: string;
  stop(): void;
}

/** Where the rendered task lies. */
export const SYNTH_ROOT = 'data/synth';

export function synthDataset(synth: NonNullable<TrainConfig['data']['synth']>, root = SYNTH_ROOT): SynthDataset {
  return prepareSynth({
    seed: synth.seed,
    root,
    kinds: synth.kinds,
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
function missingVideos(rows: readonly DataRow[], rendered: ReadonlySet<string>): DataRow[] {
  return rows.filter(
    ({ sample: { videoPath: path } }) => path !== undefined && !rendered.has(path) && !existsSync(path),
  );
}

/** How rows become samples that a run can use, and what is said about it. */
interface Preparation {
  config: TrainConfig;
  processor: Processor;
  facts: VideoFactsBook;
  /** Videos that will be rendered. */
  rendered: ReadonlySet<string>;
  print: (line: string) => void;
}

/** Reads, completes and checks the rows of one purpose. @throws InputError on the first that cannot be used, unless those are left out. */
async function prepareRows(
  { files, maxSamples, purpose }: { files: readonly string[]; maxSamples: number; purpose: string },
  { config, processor, facts, rendered, print }: Preparation,
): Promise<Sample[]> {
  if (files.length === 0 || maxSamples === 0) return [];
  const { data } = config;
  const say = (line: string): void => print(`${purpose} data: ${line}`);
  const options = { ...rowOptionsOf(config, maxSamples), environments: environmentNames(config.env.registry) };
  const read = await readRows(files, options);
  const missing = missingVideos(read.rows, rendered);
  if (missing.length > 0 && !options.skipBroken)
    throw new InputError(
      `${missing[0]!.where}: ${missing[0]!.sample.videoPath}: no such video${missing.length > 1 ? ` (and ${missing.length - 1} rows more)` : ''}`,
    );
  const present = read.rows.filter((row) => !missing.includes(row));
  const { completed, unreadable } = await facts.complete(present);
  const checked = await checkPrompts(present, {
    processor,
    regimes: regimesOf(config),
    systemPrompt: data.system_prompt,
    limits: { maxPromptLength: data.max_prompt_length, truncation: data.truncation },
    filterOverlong: data.filter_overlong_prompts,
    skipBroken: options.skipBroken,
    facts,
  });

  const leftOut = [
    ...read.leftOut,
    ...missing.map(({ where, sample }) => ({ where, reason: 'no such video', message: `${sample.videoPath}` })),
    ...checked.leftOut,
  ];
  const limit = `data.max_prompt_length = ${data.max_prompt_length} tokens (the longest prompt has ${checked.longest})`;
  if (read.absolutePaths > 0) say(`${read.absolutePaths} rows name their video by an absolute path`);
  if (leftOut.length > 0)
    say(`${leftOut.length} broken rows are left out (data.skip_broken_rows): ${countReasons(leftOut).join('; ')}`);
  if (completed > 0) say(`${completed} rows without fps or total_frames take them from their video`);
  const blind = [...new Set([...unreadable, ...checked.unreadable])];
  if (blind.length > 0)
    say(
      `${blind.length} rows have a video that cannot be read and will count as agent/error/decode_error (${blind[0]})`,
    );
  if (checked.overlong > 0)
    say(`${checked.overlong} rows are left out (data.filter_overlong_prompts): prompts longer than ${limit}`);
  if (checked.truncated > 0)
    say(`${checked.truncated} prompts are cut (data.truncation=${data.truncation}) to ${limit}`);
  if (checked.rows.length === 0) throw new InputError(`${files.join(', ')}: no row is left to use`);
  return checked.rows.map(({ sample }) => sample);
}

/** @throws InputError naming file and line of a row that cannot be used. */
export async function openTrainingData(
  config: TrainConfig,
  {
    jobs,
    print,
    onVideo,
  }: { jobs: number; print: (line: string) => void; onVideo?: (done: number, total: number) => void },
): Promise<TrainingData> {
  const { data, trainer } = config;
  checkModelFolder(config.actor_rollout_ref.model.path);
  if (data.train_files.length === 0)
    throw new InputError('data.train_files is empty and data.synth is not set: there is nothing to train on');
  const dataset = data.synth ? synthDataset(data.synth) : undefined;
  const facts = new VideoFactsBook();
  const preparation: Preparation = {
    config,
    processor: loadProcessor(config.actor_rollout_ref.model.path),
    facts,
    rendered: new Set(dataset?.videos.map(({ path }) => resolve(path))),
    print,
  };
  const train = await prepareRows(
    { files: data.train_files, maxSamples: data.train_max_samples, purpose: 'training' },
    preparation,
  );
  const validation = await prepareRows(
    { files: data.val_files, maxSamples: data.val_max_samples, purpose: 'validation' },
    preparation,
  );
  const sampler = createQuestionSampler({
    rows: train.length,
    batchSize: data.gen_batch_size,
    seed: data.seed,
    shuffle: data.shuffle,
  });
  const compare = async (samples: readonly Sample[]): Promise<void> => {
    for (const line of await facts.compare(samples)) print(`data: ${line}; the row's figure is used`);
  };
  const trainsOn = (file: string): boolean => data.train_files.some((own) => resolve(own) === resolve(file));
  if (!dataset) return { train, validation, sampler, ready: compare, stop: () => {} };
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
    ...(trainsOn(dataset.files.train!) ? { testFile: dataset.files.test! } : {}),
    ready: async (samples) => {
      await Promise.all(
        samples.map(({ videoPath }) => (videoPath === undefined ? undefined : rendering.ready(videoPath))),
      );
      await compare(samples);
    },
    stop: () => rendering.stop(),
  };
}

/** The rows of an evaluation, completed from their videos. @throws InputError naming file and line of a broken row. */
export async function readEvaluationRows(
  file: string,
  config: TrainConfig,
  print: (line: string) => void,
): Promise<Sample[]> {
  const { rows, leftOut } = await readRows([file], rowOptionsOf(config));
  if (leftOut.length > 0) print(`${leftOut.length} broken rows are left out: ${countReasons(leftOut).join('; ')}`);
  const facts = new VideoFactsBook();
  await facts.complete(rows);
  const samples = rows.map(({ sample }) => sample);
  for (const line of await facts.compare(samples)) print(`${line}; the row's figure is used`);
  return samples;
}
