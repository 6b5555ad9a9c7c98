/** @file The curriculum that makes the base policy: parts first, then the whole, then mixed habits. */
import { createRng } from '@frame-thinker/core';
import type { DemonstrationWeights } from './demonstration.ts';
import { type DemonstrationKind, demonstrate } from './demonstrations.ts';
import { makeQuestion, type QuestionKind } from './synth-questions.ts';
import { type Split, type SynthVideo, synthVideo } from './synth-scene.ts';
import type { SequenceEncoder, TokenSequence } from './token-sequence.ts';

/** So many steps of so many demonstrations of each kind. */
export interface CurriculumStage {
  steps: number;
  mix: Partial<Record<DemonstrationKind, number>>;
}

/** Stages under one learning-rate schedule and one set of loss weights. */
export interface CurriculumPhase {
  lr: number;
  warmupSteps: number;
  /** The rate falls linearly to 0 over this last share of the phase. */
  decayShare: number;
  weights: DemonstrationWeights;
  stages: CurriculumStage[];
}

export interface CurriculumOptions {
  seed: number;
  split: Split;
  videos: number;
  /** Kinds of questions that are taught. */
  kinds: readonly QuestionKind[];
  /** Frames a look. */
  frames: number;
  phases: CurriculumPhase[];
}

export interface CurriculumSequence extends TokenSequence {
  kind: DemonstrationKind;
  /** Of the question. */
  questionKind: QuestionKind;
  video: SynthVideo;
}

export interface Curriculum {
  totalSteps: number;
  videos: SynthVideo[];
  /** Learning rate of a step (from 0). */
  learningRate(step: number): number;
  /** The demonstrations of a step: a pure function of seed and step. */
  sequences(step: number, encoder: SequenceEncoder): CurriculumSequence[];
}

export function createCurriculum({ seed, split, videos: count, kinds, frames, phases }: CurriculumOptions): Curriculum {
  const videos = Array.from({ length: count }, (_, index) => synthVideo({ seed, split, index }));
  const plan = phases.flatMap((phase) => {
    const total = phase.stages.reduce((sum, { steps }) => sum + steps, 0);
    let at = 0;
    return phase.stages.flatMap(({ steps, mix }) =>
      Array.from({ length: steps }, () => ({ phase, mix, at: at++, total })),
    );
  });
  const planned = (step: number): (typeof plan)[number] => {
    const entry = plan[step];
    if (!entry) throw new RangeError(`step ${step} of a curriculum of ${plan.length}`);
    return entry;
  };
  return {
    totalSteps: plan.length,
    videos,
    learningRate: (step) => {
      const { phase, at, total } = planned(step);
      const warm = Math.min(1, (at + 1) / Math.max(1, phase.warmupSteps));
      const fall = phase.decayShare > 0 ? Math.min(1, (1 - at / total) / phase.decayShare) : 1;
      return phase.lr * warm * fall;
    },
    sequences: (step, encoder) => {
      const { phase, mix } = planned(step);
      // As many of each kind in every step: batches then have few different shapes.
      const wanted = (Object.entries(mix) as [DemonstrationKind, number][]).flatMap(([kind, n]) =>
        Array.from({ length: n }, (_, i) => ({ kind, questionKind: kinds[i % kinds.length]! })),
      );
      return wanted.map(({ kind, questionKind }, row) => {
        const rng = createRng(seed, 'synth', step, row, 2);
        const video = rng.pick(videos);
        const options = { ...encoder, encode: encoder.encode, frames, weights: phase.weights };
        const question = makeQuestion(video, rng, [questionKind]);
        return { kind, questionKind, video, ...demonstrate(kind, question, rng, options) };
      });
    },
  };
}
