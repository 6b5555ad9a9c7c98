import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeSafetensors } from '@frame-thinker/checkpoint';
import {
  createRng,
  type Environment,
  type FrameRef,
  type Group,
  type RolloutLimits,
  type Trajectory,
} from '@frame-thinker/core';
import { createOnnxEngine } from '@frame-thinker/engine-onnx';
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import {
  createScorer,
  createVisionEncoder,
  type ImageInput,
  imageTokens,
  loadWeights,
  parameterSpecs,
  parseConfig,
  type QwenVLConfig,
  type VisionEncoder,
} from '@frame-thinker/qwen-vl';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TextCodec } from './episode.ts';
import { createQwenPolicyModel } from './qwen-policy-model.ts';
import { rollout } from './rollout.ts';

const folder = join(process.env.GOLDEN_DIR ?? join(import.meta.dirname, '../../../tests/fixtures'), 'qwen/model');
let engine: Engine;
let parameters: ParameterSet;
let config: QwenVLConfig;
let vision: VisionEncoder;

beforeAll(async () => {
  engine = await createOnnxEngine({ threads: 1, provider: 'cpu' });
  config = parseConfig(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')));
  parameters = engine.parameters(parameterSpecs(config));
  const { tensors } = decodeSafetensors(readFileSync(join(folder, 'model.safetensors')));
  await loadWeights(parameters, {
    names: () => tensors.keys(),
    shape: (name) => tensors.get(name)!.shape,
    read: (name) => tensors.get(name)!.data as Float32Array,
  });
  vision = createVisionEncoder({ engine, parameters, config });
});
afterAll(() => engine.release());

/** Frames of two sizes with random pixels. */
const frame = (index: number): FrameRef => ({
  video: 'v',
  index,
  width: index % 3 === 0 ? 56 : 84,
  height: 56,
  sha256: `${index}`,
});
const imageOf = ({ index, width, height }: FrameRef): ImageInput => {
  const { patch, channels, temporalPatch } = config.vision;
  const grid = [1, height / patch, width / patch] as const;
  const rng = createRng(index, 'synth');
  const pixels = Float32Array.from({ length: grid[1] * grid[2] * channels * temporalPatch * patch ** 2 }, () =>
    rng.normal(),
  );
  return { key: `${index}`, grid, pixels };
};

/** Few ids may be sampled, so that turns end; the first of them is the stop token. */
const ALLOWED = 6;
const codec = (): TextCodec => ({
  eosIds: [0],
  turnEndId: 0,
  ban: Array.from({ length: config.vocab - ALLOWED }, (_, i) => i + ALLOWED),
  decode: (ids) => ids.join(' '),
  observation: (message, frames) => {
    const ids = message.split(' ').map(Number);
    const positions: number[] = [];
    for (const shown of frames) {
      positions.push(ids.length + 1);
      const pads = Array<number>(imageTokens(imageOf(shown).grid, config)).fill(config.imageToken);
      ids.push(config.visionStart, ...pads, config.visionEnd, 30);
    }
    return { ids: Int32Array.from(ids), positions };
  },
});

/** Shows one frame, then two more, then only text, then ends. */
const environment = (): Environment => {
  let turn = 0;
  return {
    reset: async () => {},
    close: async () => {},
    step: async (text) => {
      turn++;
      const first = text.length % 7;
      if (turn === 4) return { frames: [], done: true, reason: 'answer' };
      const frames = turn === 3 ? [] : turn === 2 ? [frame(first), frame(first + 2)] : [frame(first)];
      return { message: '31 32 33', frames, done: false };
    },
  };
};

const limits: RolloutLimits = {
  slots: 4,
  maxPromptLength: 100,
  maxResponseLength: 400,
  singleResponseMaxTokens: 40,
  maxTurns: 5,
  maxImages: 9,
};
const groups: Group[] = [0, 1].map((position) => ({
  sample: { uid: `q${position}`, prompt: [], dataSource: 'd', groundTruth: '', extraInfo: {} },
  position,
  n: 2,
  step: 1,
}));

async function sampled(temperature: number, slots: number, order = groups): Promise<Trajectory[]> {
  const model = createQwenPolicyModel({
    engine,
    parameters,
    config,
    vision,
    slots,
    images: async (f) => f.map(imageOf),
  });
  const out: Trajectory[] = [];
  const prompt = async ({ uid }: { uid: string }) => {
    const index = Number(uid.slice(1));
    const { ids, positions } = codec().observation(`40 41 ${50 + index}`, [frame(index), frame(index + 1)]);
    return { ids, frames: [frame(index), frame(index + 1)].map((f, i) => ({ ...f, position: positions[i]! })) };
  };
  for await (const { trajectories } of rollout({
    model,
    codec: codec(),
    prompt,
    environment: async () => environment(),
    limits: { ...limits, slots },
    sampling: { temperature, topP: 1, topK: -1, doSample: true },
    seed: 5,
    groups: order,
  }))
    out.push(...trajectories);
  await model.close();
  return out.sort((a, b) => a.uid.localeCompare(b.uid) || a.sample - b.sample);
}

const worst = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);

describe('decoding with the engine', () => {
  it.each([1, 0.7])(
    'at temperature %s gives the log-probs that the scorer gives, over turns with images',
    async (temperature) => {
      const trajectories = await sampled(temperature, 4);
      const shown = trajectories.map((t) => t.turns.filter((turn) => turn.role === 'user').length);
      expect(shown.reduce((a, b) => a + b, 0)).toBeGreaterThan(4);
      expect(trajectories.some((t) => t.frames.length >= 5)).toBe(true);
      const scorer = createScorer({ engine, parameters, config, vision });
      for (const { ids, mask, frames, logProbs } of trajectories) {
        const rows = [{ ids, images: frames.map(imageOf), scored: mask }];
        const scores = await scorer.forward({ rows }, { temperature, ban: codec().ban, entropy: false });
        expect(worst(scores.logProbs[0]!, logProbs)).toBeLessThan(1e-4);
      }
      await scorer.release();
    },
  );

  it('does not let a row depend on slots, batch mates or order', async () => {
    const base = await sampled(1, 4);
    for (const other of [await sampled(1, 7), await sampled(1, 2, [...groups].reverse())])
      for (const [i, { ids, logProbs }] of other.entries()) {
        expect(ids).toEqual(base[i]!.ids);
        expect(worst(logProbs, base[i]!.logProbs)).toBeLessThan(1e-5);
      }
  });
});
