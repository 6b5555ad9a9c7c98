/** @file What supervised fine-tuning reads: sequences of the curriculum, as rows of a worker's batch. */
import type { Curriculum, CurriculumSequence, SequenceEncoder } from '@frame-thinker/benchmark';
import type { BatchRow } from '@frame-thinker/worker-pool';

/** One sequence with a loss weight per token. */
export interface SftRow {
  row: BatchRow;
  weights: Float32Array;
}

export interface SftSource {
  totalSteps: number;
  /** Learning rate of a step, from 0. */
  learningRate(step: number): number;
  /** Micro-batches of a step: sequences of like length together. */
  microBatches(step: number): SftRow[][];
}

export interface CurriculumSourceOptions {
  curriculum: Curriculum;
  encoder: SequenceEncoder;
  /** Size of a frame as the model sees it. */
  frameSize: { width: number; height: number };
  videoPath: (name: string) => string;
  /** Sequences in one forward and backward. */
  microBatchSize: number;
}

function toRow(sequence: CurriculumSequence, { frameSize, videoPath }: CurriculumSourceOptions): SftRow {
  const { ids, weights, frames, jumps, video } = sequence;
  return {
    row: {
      ids,
      mask: Uint8Array.from(weights, (w) => (w > 0 ? 1 : 0)),
      promptLength: 1,
      frames: frames.map(({ index, position }) => ({
        video: videoPath(video.name),
        index,
        position,
        ...frameSize,
        sha256: '',
      })),
      jumps: jumps.map(({ index, by }) => ({ at: index, by })),
    },
    weights,
  };
}

/** Demonstrations of like length: what is shown and learnt is the same whatever the question, a place question's turns are other ones. */
function batchOf({ kind, questionKind }: CurriculumSequence): string {
  return kind !== 'see' && questionKind === 'place' ? `${kind} place` : kind;
}

/** The curriculum's demonstrations: those of like length in micro-batches of their own. */
export function curriculumSource(options: CurriculumSourceOptions): SftSource {
  const { curriculum, encoder, microBatchSize } = options;
  return {
    totalSteps: curriculum.totalSteps,
    learningRate: (step) => curriculum.learningRate(step),
    microBatches: (step) => {
      const batches = new Map<string, CurriculumSequence[]>();
      for (const sequence of curriculum.sequences(step, encoder)) {
        const same = batches.get(batchOf(sequence));
        if (same) same.push(sequence);
        else batches.set(batchOf(sequence), [sequence]);
      }
      return [...batches.values()].flatMap((sequences) => {
        const rows = sequences
          .toSorted((a, b) => a.ids.length - b.ids.length)
          .map((sequence) => toRow(sequence, options));
        return Array.from({ length: Math.ceil(rows.length / microBatchSize) }, (_, i) =>
          rows.slice(i * microBatchSize, (i + 1) * microBatchSize),
        );
      });
    },
  };
}
