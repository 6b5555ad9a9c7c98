/** @file Log-probs and entropies of whole sequences, and the gradients of what their cotangents say. */
import type { Tensor } from '@frame-thinker/graph';
import { MASKED } from './attention.ts';
import { type ScoreShape, scoreGraph, sequenceBytes } from './score-graph.ts';
import { float, int, type ScoreRow } from './score-layout.ts';
import { createSequenceRunner, type SequenceOptions, scatterScored } from './sequence-runner.ts';

export interface ScoreBatch {
  rows: readonly ScoreRow[];
}

export interface ScoreOptions {
  temperature: number;
  /** Ids that get −inf before the softmax. */
  ban: readonly number[];
}

/** A row each, aligned with ids: value i belongs to ids[i] given ids[<i]; 0 where not scored. Entropy in nats. */
export interface Scores {
  logProbs: Float32Array[];
  entropy: Float32Array[];
  /** Σ over the vocabulary of π², where it was asked for. */
  sumPiSquared?: Float32Array[];
}

export interface Scorer {
  /** `entropy: false` leaves the entropies 0 (and saves their time). Default true. */
  forward(batch: ScoreBatch, options: ScoreOptions & { entropy?: boolean; sumPiSquared?: boolean }): Promise<Scores>;
  /**
   * Adds the gradients of Σ dLogProbs·logProbs + dEntropy·entropy, vision tower included, to parameters.gradients.
   * Entropies are computed only if some dEntropy is not 0 or `entropy` asks for them; else they are 0.
   */
  backward(
    batch: ScoreBatch,
    options: ScoreOptions & {
      dLogProbs: readonly Float32Array[];
      dEntropy?: readonly Float32Array[];
      entropy?: boolean;
    },
  ): Promise<Scores>;
  release(): Promise<void>;
}

export function createScorer(options: SequenceOptions): Scorer {
  const { config } = options;
  const { vocab } = config;
  const sequences = createSequenceRunner(options);

  const run = async (
    { rows }: ScoreBatch,
    settings: ScoreOptions & {
      entropy: boolean;
      sumPiSquared?: boolean;
      dLogProbs?: readonly Float32Array[];
      dEntropy?: readonly Float32Array[];
    },
  ): Promise<Scores> => {
    const { temperature, ban, entropy, sumPiSquared = false, dLogProbs, dEntropy } = settings;
    const result = await sequences.run(rows, {
      backward: dLogProbs !== undefined,
      plan: (sequence, { scored, gather }) => {
        const shape: ScoreShape = { ...sequence, ban: ban.length > 0, entropy, sumPiSquared };
        const targets = new Int32Array(shape.scored);
        scored.forEach(({ row, token }, n) => {
          targets[n] = rows[row]!.ids[token]!;
        });
        const inputs: Record<string, Tensor> = {
          targets: int(targets, [shape.scored, 1]),
          inverse_temperature: float(Float32Array.of(1 / temperature), []),
        };
        if (shape.ban) {
          const added = new Float32Array(vocab);
          for (const id of ban) added[id] = MASKED;
          inputs.ban = float(added, [vocab]);
        }
        if (dLogProbs) inputs.d_log_probs = gather(dLogProbs);
        if (dLogProbs && entropy)
          inputs.d_entropy = dEntropy ? gather(dEntropy) : float(new Float32Array(shape.scored), [shape.scored]);
        return {
          key: `score ${JSON.stringify(shape)}`,
          bytes: sequenceBytes(config, shape, vocab),
          build: () => scoreGraph(config, shape),
          inputs,
        };
      },
    });
    return {
      logProbs: scatterScored(rows, result, 'log_probs'),
      entropy: scatterScored(rows, result, 'entropy'),
      ...(sumPiSquared ? { sumPiSquared: scatterScored(rows, result, 'sum_pi_squared') } : {}),
    };
  };

  return {
    forward: (batch, settings) => run(batch, { ...settings, entropy: settings.entropy ?? true }),
    backward: (batch, settings) => {
      const used = settings.dEntropy?.some((row) => row.some((x) => x !== 0)) ?? false;
      return run(batch, { ...settings, entropy: used || (settings.entropy ?? false) });
    },
    release: () => sequences.release(),
  };
}
