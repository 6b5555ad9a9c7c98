/**
 * @file A process of `pnpm bench engines`: one engine with the tiny policy, or one with random weights, and one group of eight answers to a question about a
 * video. It answers each message of its parent with a training step: forward and backward of the group, then AdamW.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { tinyPolicyFiles } from '@frame-thinker/benchmark';
import { openHfFolder } from '@frame-thinker/checkpoint';
import type { Backend } from '@frame-thinker/engine-tfjs';
import type { Engine } from '@frame-thinker/graph';
import {
  createScorer,
  createVisionEncoder,
  type ImageInput,
  initialise,
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
const INITIAL_STD = 0.02;
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
  return createTfjsEngine({ threads, backend: name as Backend });
}

/** The tiny policy's trained weights, or those that a policy of another size begins with. */
async function loadPolicy(engine: Engine, size: { hidden: number; layers: number } | undefined) {
  if (size) {
    const config = parseConfig(tinyPolicyFiles(size).config);
    const parameters = engine.parameters(parameterSpecs(config));
    for (const [name, values] of initialise(config, 1, INITIAL_STD)) parameters.write(name, values);
    return { config, parameters };
  }
  const config = parseConfig(JSON.parse(readFileSync(join(MODEL, 'config.json'), 'utf8')));
  const parameters = engine.parameters(parameterSpecs(config));
  const folder = openHfFolder(MODEL);
  await loadWeights(parameters, {
    names: () => folder.names,
    shape: (name) => folder.shape(name),
    read: (name) => folder.read(name),
  });
  folder.close();
  return { config, parameters };
}

async function trainer(engine: Engine, size?: { hidden: number; layers: number }): Promise<() => Promise<StepReport>> {
  const { config, parameters } = await loadPolicy(engine, size);
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

const [name = '', threads, hidden, layers] = process.argv.slice(2);
const step = await trainer(
  await openEngine(name, Number(threads)),
  hidden === undefined ? undefined : { hidden: Number(hidden), layers: Number(layers) },
);
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
