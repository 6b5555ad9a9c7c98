/** @file The vision tower in graph ops, for a number of images of one grid. */
import { type Graph, GraphBuilder, gradients, type Value } from '@frame-thinker/graph';
import type { QwenVLConfig } from './config.ts';
import { createWeights, gatedMlp, splitHeads, type Weights } from './layers.ts';
import { parameterSpecs, VISUAL } from './names.ts';
import type { Grid } from './positions.ts';
import { type VisionPlan, visionPlan } from './vision-plan.ts';

/** cos and sin [count · patches, headDim / 2]: the first half of the frequencies turn with the row, the others with the column. */
function ropeConstants(g: GraphBuilder, config: QwenVLConfig, plan: VisionPlan, count: number) {
  const { headDim, ropeTheta } = config.vision;
  const quarter = headDim / 4;
  const cos = new Float32Array((count * plan.patches * headDim) / 2);
  const sin = new Float32Array(cos.length);
  for (let i = 0; i < count * plan.patches; i++)
    for (let j = 0; j < 2 * quarter; j++) {
      const position = (j < quarter ? plan.rows : plan.columns)[i % plan.patches]!;
      const frequency = Math.fround(1 / ropeTheta ** ((j % quarter) / quarter));
      const angle = Math.fround(position * frequency);
      cos[i * 2 * quarter + j] = Math.cos(angle);
      sin[i * 2 * quarter + j] = Math.sin(angle);
    }
  const shape = [count * plan.patches, headDim / 2];
  // The scale of the scores is put into the queries' rotation.
  const scale = headDim ** -0.5;
  return {
    cos: g.constant(cos, shape),
    sin: g.constant(sin, shape),
    queryCos: g.constant(
      cos.map((c) => c * scale),
      shape,
    ),
    querySin: g.constant(
      sin.map((s) => s * scale),
      shape,
    ),
  };
}

/** Attention within each window of `size` patches. q, k, v: [windows · size, hidden]. */
function windowAttention(
  g: GraphBuilder,
  [q, k, v]: readonly [Value, Value, Value],
  options: { windows: number; size: number; heads: number },
): Value {
  const { windows, size, heads } = options;
  const split = (x: Value) => splitHeads(g, x, windows, size, heads);
  const p = g.softmax(g.matmul(split(q), split(k), { transposeB: true }));
  return g.reshape(g.transpose(g.matmul(p, split(v)), [0, 2, 1, 3]), q.shape);
}

/** Attention by segments of equal windows of each image; one segment needs no cutting. */
function segmentedAttention(
  g: GraphBuilder,
  qkv: readonly [Value, Value, Value],
  options: { count: number; heads: number; segments: VisionPlan['segments'] },
): Value {
  const { count, heads, segments } = options;
  const [only] = segments;
  if (segments.length === 1 && only)
    return windowAttention(g, qkv, { windows: count * only.windows, size: only.size, heads });
  const [rows, hidden] = qkv[0].shape as [number, number];
  const images = qkv.map((x) => g.reshape(x, [count, rows / count, hidden])) as [Value, Value, Value];
  let start = 0;
  const parts = segments.map(({ windows, size }) => {
    const end = start + windows * size;
    const cut = images.map((x) => g.reshape(g.slice(x, 1, start, end), [count * windows * size, hidden]));
    const y = windowAttention(g, cut as [Value, Value, Value], { windows: count * windows, size, heads });
    start = end;
    return g.reshape(y, [count, windows * size, hidden]);
  });
  return g.reshape(g.concat(parts, 1), [rows, hidden]);
}

/** q, k, v [T, hidden] each: the fused weight is cut, not the activations (its gradient is then small to put together). */
function queryKeyValue(g: GraphBuilder, weights: Weights, x: Value, name: string): [Value, Value, Value] {
  const hidden = x.shape[1]!;
  const weight = weights.parameter(`${name}.weight`);
  const bias = weights.parameter(`${name}.bias`);
  const part = (i: number) =>
    g.add(
      g.matmul(x, g.slice(weight, 0, i * hidden, (i + 1) * hidden), { transposeB: true }),
      g.slice(bias, 0, i * hidden, (i + 1) * hidden),
    );
  return [part(0), part(1), part(2)];
}

/** A gather of whole tokens (merge² rows each), the same within each image. */
function reorder(g: GraphBuilder, x: Value, order: Int32Array, count: number): Value {
  const [rows, width] = x.shape as [number, number];
  const unit = rows / count / order.length;
  const index = Int32Array.from({ length: count * order.length }, (_, i) => {
    const image = Math.floor(i / order.length);
    return image * order.length + order[i % order.length]!;
  });
  const tokens = g.reshape(x, [count * order.length, unit * width]);
  return g.reshape(g.gatherRows(tokens, g.constant(index, [index.length])), [rows, width]);
}

export interface VisionShape {
  grid: Grid;
  /** Images. */
  count: number;
  /** Frames a patch that the pixels have: temporalPatch, or 1 for images whose frames are all equal. */
  frames: number;
  backward?: boolean;
}

/** Roughly what a run allocates (see scoreBytes), and the scores of one layer. */
export function visionBytes(config: QwenVLConfig, { grid, count }: VisionShape): number {
  const { vision } = config;
  const { patches } = visionPlan(config, grid);
  const patch = vision.depth * (12 * vision.hidden + 6 * vision.intermediate + vision.heads * patches);
  return 4 * count * patches * patch;
}

/** The patch kernel [hidden, channels · frames · patch²]; one frame given for all: the sum of its slices. */
function patchKernel(g: GraphBuilder, { vision }: QwenVLConfig, weights: Weights, frames: number): Value {
  const { hidden, channels, temporalPatch, patch } = vision;
  const kernel = weights.parameter(`${VISUAL}patch_embed.proj.weight`);
  const flat = [hidden, channels * frames * patch * patch];
  if (frames === temporalPatch) return g.reshape(kernel, flat);
  return g.reshape(g.sum(kernel, [2]), flat);
}

/** pixels [count · patches, channels · frames · patch²] → features [count · tokens, hidden], tokens in image order. */
export function visionTower(g: GraphBuilder, config: QwenVLConfig, shape: VisionShape, pixels: Value): Value {
  const { grid, count, frames } = shape;
  const { vision } = config;
  const plan = visionPlan(config, grid);
  const weights = createWeights(g, config);
  let x = g.matmul(pixels, patchKernel(g, config, weights, frames), { transposeB: true });
  if (!plan.identity) x = reorder(g, x, plan.order, count);
  const rope = ropeConstants(g, config, plan, count);
  const whole = [{ windows: 1, size: plan.patches }];
  for (let i = 0; i < vision.depth; i++) {
    const block = `${VISUAL}blocks.${i}`;
    x = g.scope(`visual.blocks.${i}`, () => {
      const h = g.rmsNorm(x, weights.parameter(`${block}.norm1.weight`), vision.eps);
      const [q, k, v] = queryKeyValue(g, weights, h, `${block}.attn.qkv`);
      const attended = segmentedAttention(
        g,
        [g.rope(q, rope.queryCos, rope.querySin, vision.heads), g.rope(k, rope.cos, rope.sin, vision.heads), v],
        { count, heads: vision.heads, segments: vision.fullAttention.includes(i) ? whole : plan.segments },
      );
      const y = g.add(x, weights.linear(attended, `${block}.attn.proj`, { bias: true }));
      const h2 = g.rmsNorm(y, weights.parameter(`${block}.norm2.weight`), vision.eps);
      return g.add(y, gatedMlp(g, weights, h2, `${block}.mlp`, { bias: true }));
    });
  }
  return g.scope('visual.merger', () => {
    const unit = vision.merge * vision.merge;
    const normed = g.rmsNorm(x, weights.parameter(`${VISUAL}merger.ln_q.weight`), vision.eps);
    const blocks = g.reshape(normed, [count * plan.tokens, unit * vision.hidden]);
    const h = g.gelu(weights.linear(blocks, `${VISUAL}merger.mlp.0`, { bias: true }));
    const merged = weights.linear(h, `${VISUAL}merger.mlp.2`, { bias: true });
    return plan.identity ? merged : reorder(g, merged, plan.inverse, count);
  });
}

/**
 * Inputs: pixels [count · patches, channels · frames · patch²]; with `backward`, d_features [count · tokens, hidden].
 * Outputs: features [count · tokens, hidden], or the gradient of every parameter of the tower under its name.
 */
export function visionGraph(config: QwenVLConfig, shape: VisionShape): Graph {
  const { grid, count, frames, backward = false } = shape;
  const g = new GraphBuilder();
  const { vision, hidden } = config;
  const { patches, tokens } = visionPlan(config, grid);
  const row = vision.channels * frames * vision.patch ** 2;
  const features = visionTower(g, config, shape, g.input('pixels', 'float32', [count * patches, row]));
  if (!backward) g.output('features', features);
  else {
    const cotangent = g.input('d_features', 'float32', [count * tokens, hidden]);
    const specs = parameterSpecs(config).filter(({ name }) => name.startsWith(VISUAL));
    const values = specs.map(({ name, shape }) => g.parameter(name, shape));
    const grads = gradients(g, [{ output: features, cotangent }], values);
    specs.forEach(({ name }, i) => {
      g.output(name, grads[i]!);
    });
  }
  return g.build();
}
