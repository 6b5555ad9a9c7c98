import { createRng } from '@frame-thinker/core';
import { type Engine, referenceEngine } from '@frame-thinker/graph';
import { describe, expect, it } from 'vitest';
import { parseConfig, type QwenVLConfig } from './config.ts';
import { parameterSpecs } from './names.ts';
import { type Grid, imageTokens } from './positions.ts';
import type { ScoreRow } from './score-layout.ts';
import { createScorer, type ScoreOptions } from './scorer.ts';
import { scoredBucket } from './sequence-runner.ts';
import { nestedJson } from './tiny-config.ts';
import { createVisionEncoder, type ImageInput } from './vision-encoder.ts';
import { initialise } from './weights.ts';

const untied = parseConfig(nestedJson());
const tied = parseConfig(nestedJson({}, { tie_word_embeddings: true }));

/** Counts runs by the program's label. */
function countingEngine(): { engine: Engine; runs: string[]; released: string[] } {
  const inner = referenceEngine();
  const runs: string[] = [];
  const released: string[] = [];
  const compile: Engine['compile'] = async (graph, options = {}) => {
    const program = await inner.compile(graph, options);
    const label = options.label ?? '';
    return {
      run: (...args) => {
        runs.push(label);
        return program.run(...args);
      },
      release: async () => {
        released.push(label);
      },
    };
  };
  return { engine: { ...inner, compile }, runs, released };
}

function modelOf(
  config: QwenVLConfig,
  options: { chunk?: number; lengthBucket?: number; prefixBucket?: number; programBytes?: number } = {},
) {
  const { engine, runs, released } = countingEngine();
  const parameters = engine.parameters(parameterSpecs(config));
  for (const [name, data] of initialise(config, 5, 0.3)) parameters.write(name, data);
  const vision = createVisionEncoder({ engine, parameters, config, cacheImages: 3 });
  const scorer = createScorer({ engine, parameters, config, vision, lengthBucket: 8, chunk: 5, ...options });
  return { parameters, vision, scorer, runs, released };
}

function image(key: string, grid: Grid): ImageInput {
  const { normal } = createRng(key.charCodeAt(0), 'synth');
  return { key, grid, pixels: Float32Array.from({ length: grid[1] * grid[2] * 3 * 2 * 4 }, normal) };
}
const a = image('a', [1, 2, 2]);
const b = image('b', [1, 6, 6]);

/** Text and images in turn. */
function row(parts: (number[] | ImageInput)[]): ScoreRow {
  const images = parts.filter((part): part is ImageInput => !Array.isArray(part));
  const ids = parts.flatMap((part) =>
    Array.isArray(part) ? part : [38, ...Array<number>(imageTokens(part.grid, untied)).fill(36), 39],
  );
  return { ids: Int32Array.from(ids), images };
}
const rows: ScoreRow[] = [
  row([[1, 2, 3], a, [4, 5, 6, 7], b, [8, 9]]),
  row([[11, 12], a, [13, 14, 15]]),
  row([[1, 30, 2, 3]]),
];
const settings: ScoreOptions = { temperature: 0.7, ban: [36, 37] };
/** 0 on banned targets: their log-prob is −1e30. */
const cotangents = (seed: number) => {
  const { normal } = createRng(seed, 'synth');
  return rows.map(({ ids }) => Float32Array.from(ids, (id) => (settings.ban.includes(id) ? 0 : normal())));
};
const close = (x: ArrayLike<number>, y: ArrayLike<number>, limit: number) => {
  expect(x.length).toBe(y.length);
  for (let i = 0; i < x.length; i++) expect(Math.abs(x[i]! - y[i]!)).toBeLessThanOrEqual(limit);
};

describe.each([
  ['untied', untied],
  ['tied', tied],
])('scorer, %s head', (_, config) => {
  it('gives the gradients that central differences give, vision tower included', async () => {
    const { parameters, scorer } = modelOf(config);
    const [dLogProbs, dEntropy] = [cotangents(1), cotangents(2)];
    await scorer.backward({ rows }, { ...settings, dLogProbs, dEntropy });
    const objective = async () => {
      const { logProbs, entropy } = await scorer.forward({ rows }, settings);
      let sum = 0;
      rows.forEach(({ ids }, r) => {
        for (let i = 1; i < ids.length; i++)
          sum += dLogProbs[r]![i]! * logProbs[r]![i]! + dEntropy[r]![i]! * entropy[r]![i]!;
      });
      return sum;
    };
    const names = [
      'model.language_model.embed_tokens.weight',
      'model.language_model.layers.0.self_attn.q_proj.bias',
      'model.language_model.layers.1.mlp.gate_proj.weight',
      'model.language_model.norm.weight',
      'model.visual.patch_embed.proj.weight',
      'model.visual.blocks.0.attn.qkv.weight',
      'model.visual.blocks.1.norm2.weight',
      'model.visual.merger.mlp.0.bias',
      ...(config.tied ? [] : ['lm_head.weight']),
    ];
    for (const name of names) {
      const gradient = parameters.gradients.get(name);
      // The steepest entry: rounding to float32 matters least there.
      const at = gradient.reduce((best, g, i) => (Math.abs(g) > Math.abs(gradient[best]!) ? i : best), 0);
      const weights = parameters.read(name);
      const middle = weights[at]!;
      const h = 5e-4;
      const shifted = async (by: number) => {
        weights[at] = middle + by;
        parameters.write(name, weights);
        return objective();
      };
      const slope = ((await shifted(h)) - (await shifted(-h))) / (2 * h);
      await shifted(0);
      expect(Math.abs(slope / gradient[at]! - 1), name).toBeLessThan(5e-3);
    }
  });
});

describe('scorer', () => {
  const run = async (model: ReturnType<typeof modelOf>, members: readonly number[]) => {
    const pick = <T>(items: readonly T[]) => members.map((i) => items[i]!);
    return model.scorer.backward(
      { rows: pick(rows) },
      { ...settings, dLogProbs: pick(cotangents(1)), dEntropy: pick(cotangents(2)) },
    );
  };

  it('does not depend on batch mates, chunks or buckets', async () => {
    const together = modelOf(untied);
    const whole = await run(together, [0, 1, 2]);
    const apart = modelOf(untied, { chunk: 64, lengthBucket: 3 });
    for (const i of [0, 1, 2]) {
      const alone = await run(apart, [i]);
      close(alone.logProbs[0]!, whole.logProbs[i]!, 1e-6);
      close(alone.entropy[0]!, whole.entropy[i]!, 1e-6);
    }
    const sums = together.parameters.gradients.read();
    const norm = Math.sqrt(sums.reduce((s, x) => s + x * x, 0));
    close(apart.parameters.gradients.read(), sums, 1e-6 * norm);
  });

  it.each([1, 7, 16])(
    'computes a shared beginning once, cut at a multiple of %i, with the same results',
    async (prefixBucket) => {
      // 19 tokens in common; cuts at 14 and 16 lie within the second image.
      const prompt = [[1, 2, 3], a, [4, 5], b];
      const group = [row([...prompt, [8, 9], a, [1]]), row([...prompt, [10]]), row([...prompt, [8, 11, 12, 13]])];
      const given = (seed: number) => {
        const { normal } = createRng(seed, 'synth');
        return group.map(({ ids }) => Float32Array.from(ids, (id) => (settings.ban.includes(id) ? 0 : normal())));
      };
      const results = [];
      for (const bucket of [prefixBucket, Number.POSITIVE_INFINITY]) {
        const { scorer, parameters, runs } = modelOf(untied, { prefixBucket: bucket });
        const scores = await scorer.backward({ rows: group }, { ...settings, dLogProbs: given(1), dEntropy: given(2) });
        const label = runs.find((l) => l.startsWith('score'))!;
        results.push({ scores, gradients: parameters.gradients.read(), prefix: JSON.parse(label.slice(6)).prefix });
      }
      const [shared, apart] = results as [(typeof results)[number], (typeof results)[number]];
      expect(apart.prefix).toBe(0);
      expect(shared.prefix).toBeGreaterThan(10);
      group.forEach((_, r) => {
        close(shared.scores.logProbs[r]!, apart.scores.logProbs[r]!, 1e-6);
        close(shared.scores.entropy[r]!, apart.scores.entropy[r]!, 1e-6);
      });
      const norm = Math.sqrt(apart.gradients.reduce((s, x) => s + x * x, 0));
      close(shared.gradients, apart.gradients, 1e-6 * norm);
    },
  );

  it('shares no further than positions agree', async () => {
    const { scorer } = modelOf(untied, { prefixBucket: 1 });
    const jumped = { ...rows[1]!, jumps: [{ index: 1, by: 5 }] };
    const together = await scorer.forward({ rows: [rows[1]!, jumped] }, settings);
    const alone = await scorer.forward({ rows: [jumped] }, settings);
    close(together.logProbs[1]!, alone.logProbs[0]!, 1e-6);
    expect(together.logProbs[1]).not.toEqual(together.logProbs[0]);
  });

  it('scores only what is asked for, with the same values', async () => {
    const model = modelOf(untied);
    const all = await model.scorer.forward({ rows }, settings);
    const some = rows.map((r) => ({ ...r, scored: Uint8Array.from(r.ids, (_, i) => (i % 3 === 2 ? 1 : 0)) }));
    const out = await model.scorer.forward({ rows: some }, settings);
    out.logProbs.forEach((values, r) => {
      close(
        values,
        all.logProbs[r]!.map((x, i) => (i % 3 === 2 ? x : 0)),
        1e-6,
      );
    });
    expect(all.logProbs.every((values) => values[0] === 0)).toBe(true);
    const none = await model.scorer.forward({ rows: [{ ...rows[2]!, scored: new Uint8Array(4) }] }, settings);
    expect([...none.logProbs[0]!]).toEqual([0, 0, 0, 0]);
  });

  it('sums the squared probabilities of all tokens, with bans and temperature', async () => {
    const { scorer } = modelOf(untied);
    // The probability of each token after the same beginning.
    const each = Array.from({ length: untied.vocab }, (_, id) => ({ ids: Int32Array.of(1, 30, id), images: [] }));
    const open = each.filter(({ ids }) => !settings.ban.includes(ids[2]!));
    const { logProbs, sumPiSquared } = await scorer.forward({ rows: open }, { ...settings, sumPiSquared: true });
    const sum = logProbs.reduce((total, row) => total + Math.exp(2 * row[2]!), 0);
    for (const row of sumPiSquared!) expect(row[2]).toBeCloseTo(sum, 6);
    expect(sumPiSquared![0]![0]).toBe(0);
    expect((await scorer.forward({ rows: open }, settings)).sumPiSquared).toBeUndefined();
  });

  it('bans ids and leaves entropies out when nobody asks', async () => {
    const model = modelOf(untied);
    const banned = await model.scorer.forward({ rows: [rows[2]!] }, { temperature: 1, ban: [30] });
    expect(banned.logProbs[0]![1]).toBeLessThan(-1e29);
    expect(banned.entropy[0]!.subarray(1).every((h) => h > 0 && h < Math.log(untied.vocab - 1))).toBe(true);
    const d = [new Float32Array(4)];
    const quiet = await model.scorer.backward({ rows: [rows[2]!] }, { ...settings, dLogProbs: d, dEntropy: d });
    expect(quiet.entropy[0]!.every((h) => h === 0)).toBe(true);
  });

  it('runs the tower once for frames that occur several times, and again only under other weights', async () => {
    const { scorer, vision, parameters, runs, released } = modelOf(untied, { programBytes: 0 });
    const towers = () => runs.filter((label) => label.startsWith('vision')).length;
    await scorer.forward({ rows }, settings);
    expect(towers()).toBe(2); // two grids
    await scorer.forward({ rows: [rows[1]!] }, settings);
    expect(towers()).toBe(2);
    expect(released.length).toBe(1);
    parameters.write('model.visual.merger.ln_q.weight', new Float32Array(16).fill(2));
    const [after] = await vision.encode([a]);
    expect(towers()).toBe(3);
    expect((await vision.encode([a]))[0]).toBe(after);
    await scorer.release();
    expect(released.length).toBe(2);
  });

  it('pads counts of scored tokens to few sizes', () => {
    expect([1, 64, 65, 96, 97, 129, 192, 193, 700].map(scoredBucket)).toEqual([
      64, 64, 96, 96, 128, 192, 192, 256, 768,
    ]);
  });
});
