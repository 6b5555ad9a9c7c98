/** @file One evaluation from start to report: worker, log, progress, table and report.json. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type EvaluationReport,
  evaluate,
  framesOf,
  openEvaluationLog,
  recordJudge,
  referenceJudge,
  reportOf,
  type Strategy,
  type TryRecord,
} from '@frame-thinker/benchmark';
import type { TrainConfig } from '@frame-thinker/config';
import { createProgress, InputError, type Sample, type SamplingOptions, writeFileAtomic } from '@frame-thinker/core';
import { workerEntry } from '@frame-thinker/policy-worker';
import { loadTokenizer } from '@frame-thinker/qwen-vl';
import { engineLine, workerInit } from '@frame-thinker/trainer';
import { createLocalPool, type ReplacedFrames, type WorkerInit } from '@frame-thinker/worker-pool';

export type FramesFrom = 'real' | 'grey' | 'other';

export interface RunEvaluationOptions {
  /** Environment, engine, limits, seed. */
  config: TrainConfig;
  model: string;
  /** Named in the report. */
  dataset: string;
  /** All rows of the data set. */
  samples: readonly Sample[];
  /** Only the first so many. */
  limit?: number | undefined;
  output: string;
  strategy: Strategy;
  framesFrom: FramesFrom;
  /** Of grey frames; default the middle. */
  greyLevel?: number | undefined;
  compat: 'none' | 'reference';
  sampling: SamplingOptions;
  tries: number;
  maxTurns: number;
  maxNewTokens: number;
  /** Frames of the uniform look; default twice the regime's: the first look and one more. */
  uniformFrames?: number | undefined;
  signal?: AbortSignal;
}

async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Of all files that make the model what it is. @throws InputError when the folder is none. */
export async function modelHash(model: string): Promise<string> {
  if (!existsSync(join(model, 'config.json')))
    throw new InputError(`${model}: no model here (config.json is missing); give --model <Hugging Face folder>`);
  const hash = createHash('sha256');
  const files = readdirSync(model).filter((name) => /\.(json|safetensors|jinja)$/.test(name));
  for (const name of files.sort()) hash.update(`${name} ${await fileHash(join(model, name))}\n`);
  return hash.digest('hex');
}

/** The rows themselves, whatever file they lie in. */
function rowsHash(samples: readonly Sample[]): string {
  const hash = createHash('sha256');
  for (const { prompt, videoPath, groundTruth, envName } of samples)
    hash.update(JSON.stringify([prompt, videoPath?.split('/').at(-1), groundTruth, envName]));
  return hash.digest('hex');
}

/** Single videos that are missing are reported as unreadable; when none is there, the paths are wrong. */
function checkVideos(samples: readonly Sample[], dataset: string): void {
  const videos = [...new Set(samples.flatMap(({ videoPath }) => videoPath ?? []))];
  const missing = videos.filter((path) => !existsSync(path));
  if (missing.length === 0) return;
  if (missing.length === videos.length)
    throw new InputError(`${dataset}: none of its ${videos.length} videos is there; the first is ${missing[0]}`);
  console.error(`${missing.length} of ${videos.length} videos are missing; the first is ${missing[0]}`);
}

const MID_GREY = 128;

function replacedFrames({
  framesFrom,
  greyLevel = MID_GREY,
  samples,
}: RunEvaluationOptions): ReplacedFrames | undefined {
  if (framesFrom === 'real') return undefined;
  if (framesFrom === 'grey') return { kind: 'grey', level: greyLevel };
  const videos = [...new Set(samples.flatMap(({ videoPath }) => videoPath ?? []))].sort();
  if (videos.length < 2) throw new InputError('--frames-from other: the data set has no two videos');
  return { kind: 'other', videos };
}

/** What the worker of an evaluation is started with: weights only, and limits that hold the whole prompt. */
function evaluationInit(options: RunEvaluationOptions): WorkerInit {
  const { config, model, strategy, maxTurns, maxNewTokens, compat } = options;
  const { data } = config;
  const base = workerInit(
    {
      ...config,
      actor_rollout_ref: { ...config.actor_rollout_ref, model: { ...config.actor_rollout_ref.model, path: model } },
    },
    1,
  );
  const { rollout, environment } = base;
  const looks = environment!.regimes;
  const frames = (own: number): number => options.uniformFrames ?? 2 * own;
  const uniform = {
    limitSeconds: looks.limitSeconds,
    short: { ...looks.short, frames: frames(looks.short.frames) },
    long: { ...looks.long, frames: frames(looks.long.frames) },
  };
  const replaced = replacedFrames(options);
  return {
    ...base,
    training: false,
    rollout: {
      ...rollout!,
      // One look at twice the frames takes what a second look would have taken of the response.
      maxPromptLength: data.max_prompt_length + (strategy === 'uniform' ? data.max_response_length : 0),
      singleResponseMaxTokens: maxNewTokens,
      maxTurns,
    },
    environment: {
      ...environment!,
      compat,
      ...(strategy === 'uniform' ? { regimes: uniform } : {}),
      ...(replaced ? { framesFrom: replaced } : {}),
    },
  };
}

/** What decides the records. Numbers that only set the pace (threads, slots) are left out. */
async function settingsOf(options: RunEvaluationOptions, init: WorkerInit): Promise<Record<string, unknown>> {
  const { strategy, framesFrom, compat, sampling, tries, model, samples } = options;
  const { slots: _, ...limits } = init.rollout!;
  const { baseDir: _dir, framesFrom: _frames, answerPrefill, ...environment } = init.environment!;
  const mayOnlyAnswer = strategy === 'uniform' || (tries > 1 && compat === 'none');
  return {
    version: 1,
    model: await modelHash(model),
    rows: rowsHash(samples),
    strategy,
    framesFrom,
    ...(options.greyLevel === undefined ? {} : { greyLevel: options.greyLevel }),
    compat,
    sampling,
    tries,
    seed: init.seed,
    limits,
    environment: { ...environment, ...(mayOnlyAnswer ? { answerPrefill } : {}) },
  };
}

export interface EvaluationResult {
  report: EvaluationReport;
  records: TryRecord[];
  reportFile: string;
  recordsFile: string;
}

/**
 * Runs the evaluation, or what is left of it. Undefined: it was stopped; the same call goes on.
 * @throws InputError when the output folder holds another evaluation, or the model folder is none.
 */
export async function runEvaluation(options: RunEvaluationOptions): Promise<EvaluationResult | undefined> {
  const { config, model, dataset, output, compat, signal } = options;
  const samples = options.samples.slice(0, options.limit);
  const init = evaluationInit(options);
  const settings = await settingsOf(options, init);
  const tokenizer = loadTokenizer(model);
  checkVideos(samples, dataset);
  const log = openEvaluationLog(output, settings);
  const { regimes } = init.environment!;
  try {
    const done = log.records.filter(({ final, row }) => final && row < samples.length).length;
    const bar = createProgress({ label: 'infer', unit: 'question', total: samples.length, start: done });
    const common = {
      samples,
      strategy: options.strategy,
      tries: options.tries,
      sampling: options.sampling,
      judge: (compat === 'reference' ? referenceJudge : recordJudge)(regimes),
      framesOf: (sample: Sample) => framesOf(sample, regimes),
      decode: (ids: Int32Array) => tokenizer.decode(ids),
      log,
      ...(signal ? { signal } : {}),
    };
    let right = log.records.filter(({ final, outcome }) => final && outcome === 'right').length;
    let finals = done;
    const onRecord = (record: TryRecord): void => {
      if (!record.final) return;
      finals++;
      if (record.outcome === 'right') right++;
      bar.set(finals, `${((100 * right) / finals).toFixed(1)} % right`);
    };
    const worker =
      done < samples.length
        ? await createLocalPool({ entry: workerEntry, init, logDirectory: join(output, 'logs') })
        : undefined;
    if (worker) console.error(engineLine(worker));
    let records: TryRecord[] | undefined;
    try {
      records = await evaluate({ ...common, worker: worker ?? { rollout: async function* () {} }, onRecord });
    } finally {
      bar.end();
      await worker?.close();
    }
    if (!records) return undefined;
    const report = reportOf(records);
    const reportFile = join(output, 'report.json');
    const about = { model, dataset, experiment: config.trainer.experiment_name, settings };
    writeFileAtomic(reportFile, `${JSON.stringify({ version: 1, ...about, ...report }, null, 2)}\n`);
    return { report, records, reportFile, recordsFile: join(output, 'records.jsonl') };
  } finally {
    log.close();
  }
}
