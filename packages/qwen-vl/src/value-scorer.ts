/** @file A critic's values of whole sequences, and the gradients of what their cotangents say. */
import { sequenceBytes, valueGraph } from './score-graph.ts';
import type { ScoreRow } from './score-layout.ts';
import { createSequenceRunner, type SequenceOptions, scatterScored } from './sequence-runner.ts';

/** Values are aligned with ids: value i is of the state before ids[i]; 0 where not scored. */
export interface ValueScorer {
  forward(rows: readonly ScoreRow[]): Promise<Float32Array[]>;
  /** Adds the gradient of Σ dValues·values, vision tower included, to parameters.gradients; returns the values. */
  backward(rows: readonly ScoreRow[], dValues: readonly Float32Array[]): Promise<Float32Array[]>;
  release(): Promise<void>;
}

/** @param options.parameters of valueParameterSpecs */
export function createValueScorer(options: SequenceOptions): ValueScorer {
  const { config } = options;
  const sequences = createSequenceRunner(options);
  const run = async (rows: readonly ScoreRow[], dValues?: readonly Float32Array[]): Promise<Float32Array[]> => {
    const result = await sequences.run(rows, {
      backward: dValues !== undefined,
      plan: (shape, { gather }) => ({
        key: `value ${JSON.stringify(shape)}`,
        bytes: sequenceBytes(config, shape, 1),
        build: () => valueGraph(config, shape),
        inputs: dValues ? { d_values: gather(dValues) } : {},
      }),
    });
    return scatterScored(rows, result, 'values');
  };
  return { forward: (rows) => run(rows), backward: run, release: () => sequences.release() };
}
