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

/** Rows of a micro-batch are padded to its longest, and may be so much shorter. */
const LENGTH_RATIO = 1.5;

/** Sequences by length, in parts of at most `size`, of like lengths each. */
function byLength(sequences: readonly CurriculumSequence[], size: number): CurriculumSequence[][] {
  const parts: CurriculumSequence[][] = [];
  for (const sequence of sequences.toSorted((a, b) => a.ids.length - b.ids.length)) {
    const part = parts.at(-1);
    if (part && part.length < size && sequence.ids.length <= LENGTH_RATIO * part[0]!.ids.length) part.push(sequence);
    else parts.push([sequence]);
  }
  return parts;
}

/** The curriculum's demonstrations: each kind in micro-batches of its own. */
export function curriculumSource(options: CurriculumSourceOptions): SftSource {
  const { curriculum, encoder, microBatchSize } = options;
  return {
    totalSteps: curriculum.totalSteps,
    learningRate: (step) => curriculum.learningRate(step),
    microBatches: (step) => {
      const byKind = new Map<string, CurriculumSequence[]>();
      for (const sequence of curriculum.sequences(step, encoder)) {
        const same = byKind.get(sequence.kind);
        if (same) same.push(sequence);
        else byKind.set(sequence.kind, [sequence]);
      }
      return [...byKind.values()].flatMap((sequences) =>
        byLength(sequences, microBatchSize).map((part) => part.map((sequence) => toRow(sequence, options))),
      );
    },
  };
}
