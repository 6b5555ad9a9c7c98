/** @file What only engines on TensorFlow.js must do: leave no tensors behind. */
import { tinyPolicyFiles } from '@frame-thinker/benchmark';
import { type Engine, type Graph, GraphBuilder, gradients } from '@frame-thinker/graph';
import { createScorer, createVisionEncoder, initialise, parameterSpecs, parseConfig } from '@frame-thinker/qwen-vl';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type TestedEngine, tensorCount } from './engines.ts';

const SPECS = [
  { name: 'table', shape: [9, 8] },
  { name: 'norm', shape: [8] },
  { name: 'w', shape: [8, 8] },
];

/** Embedding, norm, rotary, product, log-softmax, the log-probs of `next`, and the gradient of their sum. */
function trainingGraph(): Graph {
  const g = new GraphBuilder();
  const [table, norm, w] = SPECS.map(({ name, shape }) => g.parameter(name, shape)) as [never, never, never];
  const angles = ['cos', 'sin'].map((name) => g.input(name, 'float32', [5, 2])) as [never, never];
  const x = g.gatherRows(table, g.input('ids', 'int32', [5]));
  const h = g.rope(g.matmul(g.rmsNorm(x, norm, 1e-6), w), angles[0], angles[1], 2);
  const logits = g.matmul(g.concat([g.gelu(h), g.silu(h)], 0), table, { transposeB: true });
  const logProbs = g.takeAlongLast(g.logSoftmax(g.slice(logits, 0, 0, 5)), g.input('next', 'int32', [5, 1]));
  g.output('logp', logProbs);
  const cotangent = g.broadcastTo(g.scalar(-1), logProbs.shape);
  for (const [i, d] of gradients(g, [{ output: logProbs, cotangent }], [table, norm, w]).entries())
    g.output(SPECS[i]!.name, d);
  return g.build();
}

const waves = (shape: readonly number[]) => ({
  dtype: 'float32' as const,
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(1.7 * i + 1)),
});
const INPUTS = {
  ids: { dtype: 'int32' as const, shape: [5], data: Int32Array.of(0, 3, 8, 3, 1) },
  next: { dtype: 'int32' as const, shape: [5, 1], data: Int32Array.of(3, 8, 3, 1, 0) },
  cos: waves([5, 2]),
  sin: waves([5, 2]),
};

export function describeTensorUse(tested: TestedEngine): void {
  describe(`tensors of ${tested.title}`, () => {
    let engine: Engine;
    beforeAll(async () => {
      if (tested.missing() === undefined) engine = await tested.open();
    });
    beforeEach(tested.require);
    afterAll(() => engine?.release());

    it('are as many after each training step, and all gone after release', async () => {
      const before = tensorCount();
      const parameters = engine.parameters(SPECS);
      for (const { name, shape } of SPECS) parameters.write(name, waves(shape).data);
      const programs = [
        await engine.compile(trainingGraph(), { parameters }),
        await engine.compile(trainingGraph(), { parameters, frozen: true }),
      ];
      const counts: number[] = [];
      const losses: number[] = [];
      for (let step = 0; step < 6; step++) {
        for (const program of programs) {
          const { logp, ...grads } = await program.run(INPUTS);
          for (const { name } of SPECS) parameters.gradients.accumulate(name, grads[name]!.data as Float32Array);
          losses.push(-[...logp!.data].reduce((a, b) => a + b, 0));
          await program.run(INPUTS, ['w']);
        }
        parameters.adamw({ lr: 0.05, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 });
        counts.push(tensorCount());
      }
      expect(new Set(counts).size, `tensors after each step: ${counts}`).toBe(1);
      // It did train: the fed program's loss fell, the frozen one's stayed.
      expect(losses[10]).toBeLessThan(losses[0]!);
      expect(losses[11]).toBe(losses[1]);
      for (const program of programs) await program.release();
      parameters.release();
      expect(tensorCount()).toBe(before);
    });

    it('of the vision-language policy are as many after each training step, from the first on', async () => {
      const config = parseConfig(tinyPolicyFiles({ hidden: 32, layers: 2, visionHidden: 16, visionDepth: 1 }).config);
      const parameters = engine.parameters(parameterSpecs(config));
      for (const [name, data] of initialise(config, 5)) parameters.write(name, data);
      const vision = createVisionEncoder({ engine, parameters, config });
      const scorer = createScorer({ engine, parameters, config, vision });
      const { patch, temporalPatch, channels } = config.vision;
      const pixels = waves([8 * 4, temporalPatch * channels * patch * patch]).data;
      const image = { key: 'waves', grid: [1, 4, 8] as [number, number, number], pixels };
      const { visionStart, imageToken, visionEnd } = config;
      const ids = Int32Array.of(visionStart, ...Array<number>(8).fill(imageToken), visionEnd, 5, 6, 7, 8);
      const row = { ids, images: [image], scored: Uint8Array.from(ids, (_, i) => (i > 10 ? 1 : 0)) };
      const dLogProbs = [Float32Array.from(row.scored)];
      const counts: number[] = [];
      const seen: number[] = [];
      for (let step = 0; step < 4; step++) {
        await scorer.forward({ rows: [row] }, { temperature: 1, ban: [] });
        const { logProbs } = await scorer.backward({ rows: [row] }, { temperature: 1, ban: [], dLogProbs });
        seen.push(logProbs[0]!.at(-1)!);
        parameters.adamw({ lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxNorm: 1 });
        counts.push(tensorCount());
      }
      expect(new Set(seen).size).toBe(4);
      expect(new Set(counts).size, `tensors after each step: ${counts}`).toBe(1);
      parameters.release();
    });

    it('go when a run fails', async () => {
      const before = tensorCount();
      const parameters = engine.parameters(SPECS);
      for (const { name, shape } of SPECS) parameters.write(name, waves(shape).data);
      const program = await engine.compile(trainingGraph(), { parameters, label: 'score' });
      const next = { ...INPUTS.next, data: Int32Array.of(3, 8, 3, 9, 0) };
      const failure = /^score: op take_along_last \(node \d+\): index 9 at 3, must be in \[0, 9\)$/;
      await expect(program.run({ ...INPUTS, next })).rejects.toThrow(failure);
      const once = tensorCount();
      await expect(program.run({ ...INPUTS, next })).rejects.toThrow(failure);
      expect(tensorCount()).toBe(once);
      await program.release();
      parameters.release();
      expect(tensorCount()).toBe(before);
    });
  });
}
