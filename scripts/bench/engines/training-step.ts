/**
 * @file A process of `pnpm bench engines`: one engine with the tiny policy and one group of eight answers to a question about a
 * video. It answers each message of its parent with a training step: forward and backward of the group, then AdamW.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openHfFolder } from '@frame-thinker/checkpoint';
import type { Engine } from '@frame-thinker/graph';
import {
  createScorer,
  createVisionEncoder,
  type ImageInput,
  loadImageProcessorConfig,
  loadWeights,
  parameterSpecs,
  parseConfig,
  processImage,
  type QwenVLConfig,
  type ScoreRow,
} from '@frame-thinker/qwen-vl';

export interface StepReport {
  ms: number;
  /** Processor time of all threads. */
  cpuMs: number;
  /** The most memory that the process has had. */
  peakBytes: number;
  gradNorm: number;
  /** Of all rows in one, for the first step. */
  logProbs?: Float32Array;
  gradients?: Float64Array;
}

const MODEL = join(import.meta.dirname, '../../../examples/agent/base');
const [ANSWERS, FRAMES, QUESTION, ANSWER] = [8, 8, 40, 240];
const SIZE = { width: 112, height: 56 };

/** Pictures of smooth waves. */
function pictures(): ImageInput[] {
  const processor = loadImageProcessorConfig(MODEL);
  return Array.from({ length: FRAMES }, (_, k) => {
    const data = Uint8Array.from(
      { length: SIZE.width * SIZE.height * 3 },
      (_, i) => 128 + 100 * Math.sin(i / (31 + k)),
    );
    const { pixelValues, gridThw } = processImage({ ...SIZE, data }, processor);
    return { key: `${k}`, grid: gridThw, pixels: pixelValues };
  });
}

/** Rows with one prompt, eight frames of eight tokens and a question, and each its own answer. */
function group({ imageToken, visionStart, visionEnd }: QwenVLConfig): ScoreRow[] {
  const images = pictures();
  const frame = [visionStart, ...Array<number>(8).fill(imageToken), visionEnd];
  const prompt = [...images.flatMap(() => frame), ...Array.from({ length: QUESTION }, (_, i) => (i * 13) % 250)];
  return Array.from({ length: ANSWERS }, (_, row) => {
    const answer = Array.from({ length: ANSWER }, (_, i) => (row * 31 + i * 17 + ((i * i) % 7)) % 250);
    const ids = Int32Array.from([...prompt, ...answer]);
    return { ids, images, scored: Uint8Array.from(ids, (_, i) => (i < prompt.length ? 0 : 1)) };
  });
}

async function openEngine(name: string, threads: number): Promise<Engine> {
  if (name === 'onnx') {
    const { createOnnxEngine } = await import('@frame-thinker/engine-onnx');
    return createOnnxEngine({ threads, provider: 'cpu' });
  }
  const { createTfjsEngine } = await import('@frame-thinker/engine-tfjs');
  return createTfjsEngine({ threads, backend: name as 'node' | 'wasm' });
}

async function trainer(engine: Engine): Promise<() => Promise<StepReport>> {
  const config = parseConfig(JSON.parse(readFileSync(join(MODEL, 'config.json'), 'utf8')));
  const parameters = engine.parameters(parameterSpecs(config));
  const folder = openHfFolder(MODEL);
  await loadWeights(parameters, {
    names: () => folder.names,
    shape: (name) => folder.shape(name),
    read: (name) => folder.read(name),
  });
  folder.close();
  const scorer = createScorer({
    engine,
    parameters,
    config,
    vision: createVisionEncoder({ engine, parameters, config }),
  });
  const rows = group(config);
  const dLogProbs = rows.map(({ scored }, i) => Float32Array.from(scored!, (x) => (x * (i % 2 ? 1 : -1)) / ANSWER));
  let first = true;
  return async () => {
    const start = performance.now();
    const used = process.cpuUsage();
    const { logProbs } = await scorer.backward({ rows }, { temperature: 1, ban: [], dLogProbs });
    const compared = first
      ? { logProbs: Float32Array.from(logProbs.flatMap((x) => [...x])), gradients: parameters.gradients.read() }
      : {};
    first = false;
    const { gradNorm } = parameters.adamw({ lr: 1e-4, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0, maxNorm: 1 });
    const ms = performance.now() - start;
    const { user, system } = process.cpuUsage(used);
    return {
      ms,
      cpuMs: (user + system) / 1000,
      peakBytes: process.resourceUsage().maxRSS * 1024,
      gradNorm,
      ...compared,
    };
  };
}

const [name = '', threads] = process.argv.slice(2);
const step = await trainer(await openEngine(name, Number(threads)));
process.on('message', () => {
  step().then(
    (report) => process.send!(report),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
});
process.send!('ready');
