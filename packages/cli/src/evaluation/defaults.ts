/** @file What `pnpm infer` takes where it is told nothing: model, configuration, data, output folder. */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { renderVideos } from '@frame-thinker/benchmark';
import { type LoadedConfig, loadConfig, type TrainConfig } from '@frame-thinker/config';
import { createProgress, InputError } from '@frame-thinker/core';
import { newestMergedModel } from '@frame-thinker/merge';
import { synthDataset } from '@frame-thinker/trainer';

const EMBEDDED_CONFIG = 'configs/frame_thinker.yaml';

/** @throws InputError when no model was merged yet. */
export function newestModel(): string {
  const model = newestMergedModel('runs');
  if (model === null)
    throw new InputError(
      'infer: there is no merged model below runs/: run pnpm merge --target-dir runs/<project>/<experiment>/merged first, or give --model',
    );
  return model;
}

/** The file given, else the configuration of the run that the model comes from, else the embedded default's. */
export function evaluationConfig(options: { file: string | undefined; model: string; overrides: readonly string[] }): {
  loaded: LoadedConfig;
  file: string | undefined;
} {
  const candidates = [join(dirname(resolve(options.model)), 'config.yaml'), EMBEDDED_CONFIG];
  const file = options.file ?? candidates.find((path) => existsSync(path));
  const loaded = loadConfig({ ...(file === undefined ? {} : { file }), overrides: options.overrides });
  return { loaded, file };
}

/** The data file, with its videos rendered when it belongs to the configuration's synthetic task. */
export async function evaluationData(
  { data }: TrainConfig,
  { dataset, signal }: { dataset: string | undefined; signal?: AbortSignal },
): Promise<string> {
  if (data.synth === null) {
    if (dataset === undefined)
      throw new InputError('infer: data.synth is not set, so there is no default: give --dataset');
    return dataset;
  }
  const synth = synthDataset(data.synth);
  const [split] =
    Object.entries(synth.files).find(([, file]) => resolve(file) === resolve(dataset ?? synth.files.test!)) ?? [];
  if (split === undefined) return dataset!;
  const order = synth.videos.filter((video) => video.split === split);
  if (order.some(({ path }) => !existsSync(path))) {
    const bar = createProgress({ label: 'render', unit: 'video', total: order.length });
    const rendering = renderVideos({
      dataset: synth,
      order,
      jobs: availableParallelism(),
      onVideo: (done) => bar.set(done),
    });
    const stop = (): void => rendering.stop();
    signal?.addEventListener('abort', stop);
    const stopped = new Promise<void>((done) => signal?.addEventListener('abort', () => done()));
    await Promise.race([rendering.done, stopped]);
    bar.end();
  }
  return dataset ?? synth.files.test!;
}

/** `default-merged`, `base`: a folder's name, with its parent's where all runs call it the same. */
function modelName(model: string): string {
  const name = basename(resolve(model));
  return ['merged', 'huggingface'].includes(name) ? `${basename(dirname(resolve(model)))}-${name}` : name;
}

/** `test`, or `synth-1-test` for the synthetic task's. */
function datasetName(dataset: string): string {
  const name = basename(dataset, extname(dataset));
  const folder = dirname(resolve(dataset));
  return basename(dirname(folder)) === 'synth' ? `synth-${basename(folder)}-${name}` : name;
}

/** runs/infer/<model>-<dataset>, and what is not the default about the evaluation. */
export function defaultOutput(options: {
  model: string;
  dataset: string;
  strategy: string;
  framesFrom: string;
  compat: string;
}): string {
  const { model, dataset, strategy, framesFrom, compat } = options;
  const special = [
    ...(strategy === 'spotlight' ? [] : [strategy]),
    ...(framesFrom === 'real' ? [] : [framesFrom]),
    ...(compat === 'none' ? [] : [compat]),
  ];
  return join('runs', 'infer', [modelName(model), datasetName(dataset), ...special].join('-'));
}
