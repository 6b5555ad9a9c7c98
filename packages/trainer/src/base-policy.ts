/** @file `pnpm sft`: makes the tiny base policy of the embedded default from scripted demonstrations on rendered videos. */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import {
  type Curriculum,
  type CurriculumPhase,
  createCurriculum,
  prepareSynth,
  type QuestionKind,
  renderVideos,
  tinyPolicyFiles,
} from '@frame-thinker/benchmark';
import { writeHfFolder } from '@frame-thinker/checkpoint';
import { InputError, listenForInterrupt, writeFileAtomic } from '@frame-thinker/core';
import { initialise, loadTokenizer, parameterSpecs, parseConfig, toDiskName } from '@frame-thinker/qwen-vl';
import { runSftFolder } from './sft-run.ts';
import { curriculumSource } from './sft-source.ts';

/** Frames a look and their size in the embedded default: 8 tokens a frame. */
const FRAMES = 8;
const FRAME_SIZE = { width: 112, height: 56 };
const IMAGE_TOKENS = (FRAME_SIZE.width / 28) * (FRAME_SIZE.height / 28);

/**
 * Parts first, then the whole, then a mix of good and bad habits, which is what reinforcement learning starts from. What failed
 * (joint from the start, no position jumps, initial std 0.02) is told in docs/results.md.
 */
const PROCEDURE: CurriculumPhase = {
  lr: 2e-3,
  warmupSteps: 100,
  decayShare: 0.25,
  weights: { letter: 4, verdict: 4, seen: 8, option: 2, number: 2, chance: 1 },
  stages: [
    { steps: 150, mix: { see: 64 } },
    { steps: 400, mix: { list: 24, copy: 24, see: 18 } },
    { steps: 80, mix: { whole3: 12, copy: 12 } },
    { steps: 200, mix: { whole: 12, copy: 6 } },
  ],
};
const HABITS: CurriculumPhase = {
  lr: 5e-4,
  warmupSteps: 10,
  decayShare: 0.7,
  weights: { letter: 4, verdict: 2, seen: 4, option: 1, number: 3, chance: 0.3 },
  stages: [{ steps: 250, mix: { whole: 6, guess: 6, wander: 3, copy: 6 } }],
};
/** More of the habits for a policy that has been through it: what supervision alone goes on to do. 60 samples a step. */
const CONTINUED: CurriculumPhase = {
  lr: 2.5e-4,
  warmupSteps: 1,
  decayShare: 1,
  weights: HABITS.weights,
  stages: [{ steps: 43, mix: { whole: 24, guess: 24, wander: 12 } }],
};
const VIDEOS = 40;
const MICRO_BATCH = 64;
const SAVE_FREQ = 200;
const OPTIMIZER = { betas: [0.9, 0.98] as [number, number], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 };

export interface BasePolicyOptions {
  output: string;
  seed: number;
  kinds: readonly QuestionKind[];
  /** End after so many steps of the recipe (for a try; the policy is then unfinished). */
  steps?: number | undefined;
  /** A policy of this recipe to go on from, with more of its habits; default: from the start. */
  from?: string | undefined;
  /** Run folder; default runs/sft/<seed>, or runs/sft/<name of output> where it goes on from a policy. */
  runDir?: string;
  /** Folder of the rendered task. */
  dataRoot?: string;
  print: (line: string) => void;
}

/** The HF folder with seeded random weights that training starts from. */
async function writeInitialPolicy(dir: string, seed: number): Promise<void> {
  if (existsSync(join(dir, 'config.json'))) return;
  const { config: json, files } = tinyPolicyFiles();
  const sources = `${dir}-files`;
  mkdirSync(sources, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileAtomic(join(sources, name), text);
  const config = parseConfig(json);
  const weights = initialise(config, seed);
  const tensors = parameterSpecs(config).map(({ name, shape }) => ({
    name: toDiskName(name),
    shape,
    read: () => weights.get(name)!,
  }));
  await writeHfFolder({ dir, tensors, dtype: 'fp32', copyFrom: sources });
  rmSync(sources, { recursive: true });
}

/** A curriculum cut off after `steps` keeps its schedule. */
function cut(curriculum: Curriculum, steps: number | undefined): Curriculum {
  return steps === undefined ? curriculum : { ...curriculum, totalSteps: Math.min(steps, curriculum.totalSteps) };
}

/** Trains the base policy and writes it to `output`. Resumes from its run folder. Resolves with the exit code. */
export async function trainBasePolicy({
  output,
  seed,
  kinds,
  steps,
  from,
  print,
  ...folders
}: BasePolicyOptions): Promise<number> {
  if (from !== undefined && !existsSync(join(from, 'config.json')))
    throw new InputError(`${from}: no model here (config.json is missing); give --model <Hugging Face folder>`);
  const runDir = folders.runDir ?? join('runs', 'sft', from === undefined ? String(seed) : basename(output));
  const initial = from ?? join(runDir, 'initial');
  const phases = from === undefined ? [PROCEDURE, HABITS] : [CONTINUED];
  const curriculum = cut(
    createCurriculum({ seed, split: 'sft', videos: VIDEOS, kinds, frames: FRAMES, phases }),
    steps,
  );
  const dataset = prepareSynth({
    seed,
    root: folders.dataRoot ?? join('data', 'synth'),
    kinds,
    splits: { sft: { videos: VIDEOS, questionsPerVideo: 1 } },
  });
  if (from === undefined) await writeInitialPolicy(initial, seed);
  const rendering = renderVideos({
    dataset,
    jobs: availableParallelism(),
    onVideo: (done, total) => {
      if (done % 10 === 0 || done === total) print(`rendered ${done} of ${total} videos`);
    },
  });
  const interrupt = listenForInterrupt(print);
  try {
    await rendering.done;
    const tokenizer = loadTokenizer(initial);
    const paths = new Map(dataset.videos.map(({ path }) => [path.split('/').at(-1)!, path]));
    return await runSftFolder({
      initial,
      runDir,
      output,
      seed,
      source: curriculumSource({
        curriculum,
        encoder: { encode: (text) => tokenizer.encode(text), imageTokens: IMAGE_TOKENS },
        frameSize: FRAME_SIZE,
        videoPath: (name) => {
          const path = paths.get(name);
          if (path === undefined) throw new InputError(`${name}: not among the rendered videos`);
          return path;
        },
        microBatchSize: MICRO_BATCH,
      }),
      fingerprint: JSON.stringify([kinds, phases]),
      optimizer: OPTIMIZER,
      saveFreq: SAVE_FREQ,
      interrupt,
      print,
    });
  } finally {
    interrupt.dispose();
    rendering.stop();
  }
}
