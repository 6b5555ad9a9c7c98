/** @file Normalised rows and rotary embeddings. */
import type { Lowerings } from './lowering.ts';

const lastAxis = { attributes: { axis: { int: -1 } } };

export const NORMALISATION: Lowerings<'softmax' | 'log_softmax' | 'rms_norm' | 'rope'> = {
  softmax: ({ emit, inputs: [x] }) => emit.node('Softmax', [x!.name], lastAxis),
  log_softmax: ({ emit, inputs: [x] }) => emit.node('LogSoftmax', [x!.name], lastAxis),

  // A contributed op, but registered in ONNX's own domain.
  rms_norm: ({ emit, inputs: [x, weight], attributes: { eps } }) =>
    emit.node('SimplifiedLayerNormalization', [x!.name, weight!.name], {
      attributes: { axis: { int: -1 }, epsilon: { float: eps }, stash_type: { int: 1 } },
    }),

  // The angles of the rows are the op's cache, and row t reads entry t: positions start at 0.
  rope: ({ emit, inputs: [x, cos, sin], attributes: { heads }, shape }) => {
    const batched = emit.node('Reshape', [x!.name, emit.int64s([1, ...shape])]);
    const rotated = emit.node('RotaryEmbedding', [batched, emit.int64s([0]), cos!.name, sin!.name], {
      domain: 'com.microsoft',
      attributes: { num_heads: { int: heads }, interleaved: { int: 0 }, rotary_embedding_dim: { int: 0 } },
    });
    return emit.node('Reshape', [rotated, emit.int64s(shape)]);
  },
};
