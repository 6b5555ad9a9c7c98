/** @file The training graph: log-probs (and entropies) of chosen tokens, and the gradients for their cotangents. */
import { type Graph, GraphBuilder, gradients, type Value } from '@frame-thinker/graph';
import { sequenceAttention } from './attention.ts';
import type { QwenVLConfig } from './config.ts';
import { decoderLayers, embedTokens, lmHead } from './decoder.ts';
import { parameterSpecs, VISUAL } from './names.ts';

export interface ScoreShape {
  /** Tokens that all rows begin with; they stand once. */
  prefix: number;
  rows: number;
  /** Tokens of a row after the prefix. */
  length: number;
  /** Tokens whose log-prob is computed; only their hidden rows go through the LM head. */
  scored: number;
  /** Query chunk of the attention. */
  chunk: number;
  /** Some row has images. */
  images: boolean;
  /** Some ids are banned. */
  ban: boolean;
  entropy: boolean;
  backward: boolean;
}

/** Roughly what a run allocates: measured as about 12 rows of hidden and 6 of intermediate size a token and layer. */
export function scoreBytes(config: QwenVLConfig, { prefix, rows, length, scored }: ScoreShape): number {
  const token = config.layers * (12 * config.hidden + 6 * config.intermediate);
  return 4 * ((prefix + rows * length) * token + 3 * scored * config.vocab);
}

/** Names of the parameters that the score graph gives gradients of. */
function decoderParameters(config: QwenVLConfig): string[] {
  return parameterSpecs(config)
    .map(({ name }) => name)
    .filter((name) => !name.startsWith(VISUAL));
}

/**
 * Inputs (T = prefix + rows · length, N = scored; token i of row r is at i if i < prefix, else at prefix + r · length + i − prefix):
 * - ids int32 [T], cos and sin float32 [T, headDim / 2], inverse_temperature float32 []
 * - at int32 [N]: index in T of the token before each scored one; targets int32 [N, 1]: the scored ids
 * - with images: features float32 [T, hidden] (zeros on text), text_mask float32 [T, 1] (0 on image tokens, else 1)
 * - with ban: ban float32 [vocab], added to the logits (0 or −1e30)
 * - with backward: d_log_probs [N], and with entropy d_entropy [N]
 * Outputs: log_probs [N]; with entropy, entropy [N]; with backward, the gradient of every decoder parameter under its name and,
 * with images, d_features [T, hidden].
 */
export function scoreGraph(config: QwenVLConfig, shape: ScoreShape): Graph {
  const { scored } = shape;
  const { hidden, headDim, vocab } = config;
  const g = new GraphBuilder();
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
  // Logits / temperature: the hidden rows are scaled, being narrower than the vocabulary.
  const chosen = g.mul(
    g.gatherRows(states, g.input('at', 'int32', [scored])),
    g.input('inverse_temperature', 'float32', []),
  );
  let logits = lmHead(g, config, chosen);
  if (shape.ban) logits = g.add(logits, g.input('ban', 'float32', [vocab]));
  const all = g.logSoftmax(logits);
  const logProbs = g.reshape(g.takeAlongLast(all, g.input('targets', 'int32', [scored, 1])), [scored]);
  const entropy = shape.entropy ? g.neg(g.sum(g.mul(g.exp(all), all), [1])) : undefined;
  g.output('log_probs', logProbs);
  if (entropy) g.output('entropy', entropy);
  if (shape.backward) {
    const pairs = [{ output: logProbs, cotangent: g.input('d_log_probs', 'float32', [scored]) }];
    if (entropy) pairs.push({ output: entropy, cotangent: g.input('d_entropy', 'float32', [scored]) });
    const names = decoderParameters(config);
    const shapes = new Map(parameterSpecs(config).map((spec) => [spec.name, spec.shape]));
    const wrt: Value[] = names.map((name) => g.parameter(name, shapes.get(name)!));
    if (images) wrt.push(images.features);
    const grads = gradients(g, pairs, wrt);
    for (const [i, name] of [...names, ...(images ? ['d_features'] : [])].entries()) g.output(name, grads[i]!);
  }
  return g.build();
}
