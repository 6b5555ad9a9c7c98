/** @file The training graphs: log-probs (and entropies), or values, of chosen tokens, and the gradients for their cotangents. */
import { type Graph, GraphBuilder, gradients, type ParameterSpec, type Value } from '@frame-thinker/graph';
import { sequenceAttention } from './attention.ts';
import type { QwenVLConfig } from './config.ts';
import { decoderLayers, embedTokens, lmHead } from './decoder.ts';
import { parameterSpecs, VALUE_HEAD, VISUAL, valueParameterSpecs } from './names.ts';

export interface SequenceShape {
  /** Tokens that all rows begin with; they stand once. */
  prefix: number;
  rows: number;
  /** Tokens of a row after the prefix. */
  length: number;
  /** Tokens whose log-prob or value is computed; only their hidden rows go through the head. */
  scored: number;
  /** Query chunk of the attention. */
  chunk: number;
  /** Some row has images. */
  images: boolean;
  backward: boolean;
}

export interface ScoreShape extends SequenceShape {
  /** Some ids are banned. */
  ban: boolean;
  entropy: boolean;
  /** Also the sum over the vocabulary of the squared probabilities. */
  sumPiSquared: boolean;
}

/**
 * Roughly what a run allocates: measured as about 12 rows of hidden and 6 of intermediate size a token and layer.
 * @param headWidth what the head makes of a scored token
 */
export function sequenceBytes(config: QwenVLConfig, shape: SequenceShape, headWidth: number): number {
  const { prefix, rows, length, scored } = shape;
  const token = config.layers * (12 * config.hidden + 6 * config.intermediate);
  return 4 * ((prefix + rows * length) * token + 3 * scored * headWidth);
}

/** The decoder over the whole sequences; inputs `ids`, `cos`, `sin` and, with images, `features` and `text_mask`. */
function sequenceStates(g: GraphBuilder, config: QwenVLConfig, shape: SequenceShape) {
  const { hidden, headDim } = config;
  const tokens = shape.prefix + shape.rows * shape.length;
  const ids = g.input('ids', 'int32', [tokens]);
  const images = shape.images
    ? {
        features: g.input('features', 'float32', [tokens, hidden]),
        textMask: g.input('text_mask', 'float32', [tokens, 1]),
      }
    : undefined;
  const attention = sequenceAttention(g, config, shape);
  const states = decoderLayers(g, config, {
    x: embedTokens(g, config, ids, images),
    cos: g.input('cos', 'float32', [tokens, headDim / 2]),
    sin: g.input('sin', 'float32', [tokens, headDim / 2]),
    attend: (_, projections) => attention(projections),
  });
  return { states, images };
}

/** Outputs of the gradients of all `specs` outside the vision tower under their names and, with images, of `d_features`. */
function outputGradients(
  g: GraphBuilder,
  specs: readonly ParameterSpec[],
  { pairs, images }: { pairs: { output: Value; cotangent: Value }[]; images: { features: Value } | undefined },
): void {
  const trained = specs.filter(({ name }) => !name.startsWith(VISUAL));
  const wrt: Value[] = trained.map(({ name, shape }) => g.parameter(name, shape));
  if (images) wrt.push(images.features);
  const grads = gradients(g, pairs, wrt);
  const names = trained.map(({ name }) => name);
  for (const [i, name] of [...names, ...(images ? ['d_features'] : [])].entries()) g.output(name, grads[i]!);
}

/**
 * Inputs (T = prefix + rows · length, N = scored; token i of row r is at i if i < prefix, else at prefix + r · length + i − prefix):
 * - ids int32 [T], cos and sin float32 [T, headDim / 2], inverse_temperature float32 []
 * - at int32 [N]: index in T of the token before each scored one; targets int32 [N, 1]: the scored ids
 * - with images: features float32 [T, hidden] (zeros on text), text_mask float32 [T, 1] (0 on image tokens, else 1)
 * - with ban: ban float32 [vocab], added to the logits (0 or −1e30)
 * - with backward: d_log_probs [N], and with entropy d_entropy [N]
 * Outputs: log_probs [N]; with entropy, entropy [N]; with sumPiSquared, sum_pi_squared [N]; with backward, the gradient of every
 * decoder parameter under its name and, with images, d_features [T, hidden].
 */
export function scoreGraph(config: QwenVLConfig, shape: ScoreShape): Graph {
  const { scored } = shape;
  const g = new GraphBuilder();
  const { states, images } = sequenceStates(g, config, shape);
  // Logits / temperature: the hidden rows are scaled, being narrower than the vocabulary.
  const chosen = g.mul(
    g.gatherRows(states, g.input('at', 'int32', [scored])),
    g.input('inverse_temperature', 'float32', []),
  );
  let logits = lmHead(g, config, chosen);
  if (shape.ban) logits = g.add(logits, g.input('ban', 'float32', [config.vocab]));
  const all = g.logSoftmax(logits);
  const logProbs = g.reshape(g.takeAlongLast(all, g.input('targets', 'int32', [scored, 1])), [scored]);
  const entropy = shape.entropy ? g.neg(g.sum(g.mul(g.exp(all), all), [1])) : undefined;
  g.output('log_probs', logProbs);
  if (entropy) g.output('entropy', entropy);
  if (shape.sumPiSquared) g.output('sum_pi_squared', g.sum(g.exp(g.add(all, all)), [1]));
  if (shape.backward) {
    const pairs = [{ output: logProbs, cotangent: g.input('d_log_probs', 'float32', [scored]) }];
    if (entropy) pairs.push({ output: entropy, cotangent: g.input('d_entropy', 'float32', [scored]) });
    outputGradients(g, parameterSpecs(config), { pairs, images });
  }
  return g.build();
}

/**
 * The critic: value = w · hidden + b of the token before each scored one.
 * Inputs as of scoreGraph without targets, temperature and ban; with backward, d_values [N]. Outputs: values [N]; with backward,
 * the gradients as of scoreGraph.
 */
export function valueGraph(config: QwenVLConfig, shape: SequenceShape): Graph {
  const { scored } = shape;
  const g = new GraphBuilder();
  const { states, images } = sequenceStates(g, config, shape);
  const chosen = g.gatherRows(states, g.input('at', 'int32', [scored]));
  const weight = g.parameter(VALUE_HEAD.weight, [1, config.hidden]);
  const product = g.matmul(chosen, weight, { transposeB: true });
  const values = g.reshape(g.add(product, g.parameter(VALUE_HEAD.bias, [1])), [scored]);
  g.output('values', values);
  if (shape.backward) {
    const pairs = [{ output: values, cotangent: g.input('d_values', 'float32', [scored]) }];
    outputGradients(g, valueParameterSpecs(config), { pairs, images });
  }
  return g.build();
}
