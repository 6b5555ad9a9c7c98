/** @file Qwen2.5-VL on an engine against transformers: logits, gradients, greedy tokens, AdamW. */
import type { Engine, ParameterSet } from '@frame-thinker/graph';
import {
  createScorer,
  createVisionEncoder,
  extendGraph,
  fromDiskName,
  type Grid,
  type ImageInput,
  imageTokens,
  mropePositions,
  parameterSpecs,
  type QwenVLConfig,
  ropeTables,
  type Scorer,
  toDiskName,
  type VisionEncoder,
} from '@frame-thinker/qwen-vl';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TestedEngine } from '../engines/engines.ts';
import { argmax, CachedDecoder, logSoftmax } from './cached-decoder.ts';
import {
  cutPixels,
  hasGolden,
  l2,
  loadModel,
  maxDifference,
  modelConfig,
  processedImages,
  readJson,
  readTensors,
  relativeL2,
  Tally,
  type Tensors,
} from './qwen-fixtures.ts';

interface ParityCase {
  input_ids: number[];
  images: [number, number, number][];
  grid_thw: [number, number, number][];
  position_ids: number[][];
  rope_delta: number;
  logprobs: number[];
  loss: number;
  grad_norms: Record<string, number | null>;
  logit_positions: number[];
  greedy: number[];
  greedy_logprobs: number[];
}
interface AdamwCase {
  case: string;
  lr: number;
  weight_decay: number;
  betas: [number, number];
  eps: number;
  steps: { loss: number; grad_norm: number }[];
  param_sum_after: Record<string, number>;
  param_l2_after: Record<string, number>;
}
type Parity = Record<string, ParityCase | AdamwCase>;

/** The true gradient is 0 (a constant added to all scores of a query): what is left is rounding, which AdamW blows up. */
const isNoise = (name: string) => name.endsWith('k_proj.bias');

export function describeQwenModel(tested: TestedEngine): void {
  describe.runIf(hasGolden('qwen/parity.json'))(`Qwen2.5-VL against transformers, on ${tested.title}`, () => {
    let engine: Engine;
    let config: QwenVLConfig;
    let parameters: ParameterSet;
    let vision: VisionEncoder;
    let scorer: Scorer;
    let parity: Parity;
    let tensors: Tensors;
    const tally = new Tally('qwen/parity.json');

    beforeEach((context) => tested.require(context));
    beforeAll(async () => {
      if (tested.missing() !== undefined) return;
      engine = await tested.open();
      config = modelConfig();
      parameters = await loadModel(engine, config);
      vision = createVisionEncoder({ engine, parameters, config });
      scorer = createScorer({ engine, parameters, config, vision });
      parity = readJson('parity.json');
      tensors = readTensors('parity.safetensors');
    });
    afterAll(async () => {
      if (!engine) return;
      tally.print();
      await engine.release();
    });

    const cases = (): [string, ParityCase][] =>
      Object.entries(parity).filter((entry): entry is [string, ParityCase] => 'input_ids' in entry[1]);
    const check = (run: () => Promise<void>) => async () => {
      const before = tally.failures.length;
      await run();
      expect(tally.failures.slice(before)).toEqual([]);
    };

    /** The images of a case as the original saw them, or through our processor where the fixture leaves them out. */
    const imagesOf = (name: string, { images, grid_thw }: ParityCase): ImageInput[] => {
      const pixels = tensors.get(`${name}.pixel_values`);
      return pixels ? cutPixels(pixels, grid_thw, name) : processedImages(images);
    };
    const concat = (parts: readonly Float32Array[]) => Float32Array.from(parts.flatMap((part) => [...part]));

    /** −mean log-prob of ids[1:], its gradients added to the parameters'. */
    const lossOf = async (input: ParityCase, images: ImageInput[]) => {
      const ids = Int32Array.from(input.input_ids);
      const d = new Float32Array(ids.length).fill(-1 / (ids.length - 1));
      const { logProbs } = await scorer.backward(
        { rows: [{ ids, images }] },
        { temperature: 1, ban: [], dLogProbs: [d] },
      );
      const given = logProbs[0]!.subarray(1);
      return { logProbs: given, loss: -given.reduce((a, b) => a + b, 0) / given.length };
    };

    /**
     * Logits after a position of a sequence that begins with `prompt`, from one forward over the whole sequence.
     * What follows the prompt counts as text: an unbanned model may sample a pad.
     */
    const fullForward = async (options: {
      prompt: readonly number[];
      grids: readonly Grid[];
      features: Float32Array;
      length: number;
    }) => {
      const { prompt, grids, features, length } = options;
      const rows = features.length / config.hidden;
      const program = await engine.compile(extendGraph(config, { rows: 1, length, past: 0, features: rows }), {
        parameters,
      });
      const { imageToken, headDim, hidden } = config;
      const kinds = Int32Array.from({ length }, (_, i) => prompt[i] ?? 0);
      const { cos, sin } = ropeTables(config, mropePositions({ ids: kinds, grids, config }).positions);
      const at = [...kinds.keys()].filter((i) => kinds[i] === imageToken);
      return async (tokens: readonly number[], position: number): Promise<Float32Array> => {
        const padded = Int32Array.from({ length }, (_, i) => tokens[i] ?? 0);
        const out = await program.run({
          ids: { dtype: 'int32', shape: [length], data: padded },
          cos: { dtype: 'float32', shape: [length, headDim / 2], data: cos },
          sin: { dtype: 'float32', shape: [length, headDim / 2], data: sin },
          last: { dtype: 'int32', shape: [1], data: Int32Array.of(position) },
          ...(rows > 0 && {
            features: { dtype: 'float32' as const, shape: [rows, hidden], data: features },
            feature_at: { dtype: 'int32' as const, shape: [rows], data: Int32Array.from(at) },
            text_mask: {
              dtype: 'float32' as const,
              shape: [length, 1],
              data: Float32Array.from(kinds, (id) => (id === imageToken ? 0 : 1)),
            },
          }),
        });
        return out.logits!.data as Float32Array;
      };
    };

    it('has the names of the original, in memory and on disk', () => {
      const names = readJson<{ in_memory: string[]; on_disk: string[] }>('names.json');
      const ours = parameterSpecs(config).map(({ name }) => name);
      expect(ours.toSorted()).toEqual(names.in_memory.toSorted());
      expect(ours.map(toDiskName).toSorted()).toEqual(names.on_disk.toSorted());
      for (const name of ours) for (const given of [name, toDiskName(name)]) expect(fromDiskName(given)).toBe(name);
    });

    it(
      'positions are the same',
      check(async () => {
        for (const [name, input] of cases()) {
          const ids = input.input_ids;
          const { positions, next } = mropePositions({ ids, grids: input.grid_thw, config });
          tally.within(`${name} position_ids`, maxDifference(positions, input.position_ids.flat()), 0);
          tally.equal(`${name} rope_delta`, next - ids.length === input.rope_delta);
        }
      }),
    );

    it(
      'vision features, log-probs and every gradient are the same',
      check(async () => {
        for (const [name, input] of cases()) {
          const images = imagesOf(name, input);
          const seen = tensors.get(`${name}.vision`);
          if (seen) tally.within(`${name} vision`, maxDifference(concat(await vision.encode(images)), seen), 1e-4);
          parameters.gradients.zero();
          const { logProbs, loss } = await lossOf(input, images);
          tally.within(`${name} log-probs`, maxDifference(logProbs, input.logprobs), 1e-4);
          tally.within(`${name} loss`, Math.abs(loss - input.loss), 1e-4);
          const all = l2(parameters.gradients.read());
          for (const [parameter, norm] of Object.entries(input.grad_norms)) {
            const ours = l2(parameters.gradients.get(parameter));
            const limit = 1e-3 * (norm ?? 0) + (isNoise(parameter) ? 1e-6 * all : 0);
            tally.within(`${name} grad_norm ${parameter}`, Math.abs(ours - (norm ?? 0)), limit);
          }
          const prefix = `${name}.grad.`;
          for (const tensor of tensors.names.filter((t) => t.startsWith(prefix))) {
            const ours = parameters.gradients.get(tensor.slice(prefix.length));
            tally.within(tensor, relativeL2(ours, tensors.get(tensor)!), 1e-3);
          }
        }
        parameters.gradients.zero();
      }),
    );

    it(
      'log-probs are the same on what our own image processor makes of the pictures',
      check(async () => {
        for (const [name, input] of cases()) {
          if (input.images.length === 0) continue;
          const images = processedImages(input.images);
          const ids = Int32Array.from(input.input_ids);
          const { logProbs } = await scorer.forward({ rows: [{ ids, images }] }, { temperature: 1, ban: [] });
          const { patch } = config.vision;
          const resized = images.some(
            ({ grid }, i) => grid[2] * patch !== input.images[i]![0] || grid[1] * patch !== input.images[i]![1],
          );
          const error = maxDifference(logProbs[0]!.subarray(1), input.logprobs);
          tally.within(`${name} log-probs, own pixels`, error, resized ? 5e-2 : 1e-4);
        }
      }),
    );

    it(
      'logits and 32 greedy tokens are the same, by one forward each and by cached decoding',
      check(async () => {
        for (const [name, input] of cases()) {
          const features = concat(await vision.encode(imagesOf(name, input)));
          const { input_ids: ids, grid_thw: grids, greedy } = input;
          const forward = await fullForward({ prompt: ids, grids, features, length: ids.length + greedy.length });
          const logits = [];
          for (const position of input.logit_positions) logits.push(await forward(ids, position));
          tally.within(`${name} logits`, maxDifference(concat(logits), tensors.get(`${name}.logits`)!), 2e-4);

          const decoder = new CachedDecoder({ engine, parameters, config, capacity: ids.length + greedy.length });
          const sequence = [...ids];
          const taken = { cached: [] as number[], full: [] as number[] };
          const logProbs: number[] = [];
          let after = await decoder.extend({ ids, grids, features });
          for (const _ of greedy) {
            const token = argmax(after);
            taken.cached.push(token);
            logProbs.push(logSoftmax(after)[token]!);
            taken.full.push(argmax(await forward(sequence, sequence.length - 1)));
            sequence.push(token);
            after = await decoder.extend({ ids: [token] });
          }
          tally.equal(`${name} greedy, cached: ${taken.cached}`, taken.cached.join() === greedy.join());
          tally.equal(`${name} greedy, full: ${taken.full}`, taken.full.join() === greedy.join());
          tally.within(`${name} greedy log-probs`, maxDifference(logProbs, input.greedy_logprobs), 1e-4);
        }
      }),
    );

    it(
      'a multi-turn sequence with images of mixed sizes: cached turn by turn = one forward',
      check(async () => {
        const pictures = cases().flatMap(([name, input]) => imagesOf(name, input));
        const sizes = new Map(pictures.map((p) => [p.grid.join(), p]));
        const images = [...sizes.values()].slice(0, 4);
        expect(images.length).toBeGreaterThan(1);
        const features = await vision.encode(images);
        const text = (length: number, seed: number) =>
          Array.from({ length }, (_, i) => (7 + seed * 31 + i * 13) % Math.min(config.imageToken, config.visionStart));
        // text, image, text, image, …, text: a turn ends after each text.
        const turns = images.map(({ grid }, i) => {
          const pads = Array<number>(imageTokens(grid, config)).fill(config.imageToken);
          return {
            ids: [...text(5 + 3 * i, i), ...pads, ...text(4 + i, i + 9)],
            grids: [grid],
            features: features[i]!,
          };
        });
        const ids = turns.flatMap((turn) => turn.ids);
        const grids = images.map(({ grid }) => grid);
        const forward = await fullForward({ prompt: ids, grids, features: concat(features), length: ids.length + 1 });
        const decoder = new CachedDecoder({ engine, parameters, config, capacity: ids.length + 5 });
        let length = 0;
        let next = 0;
        const whole = mropePositions({ ids, grids, config });
        for (const [i, turn] of turns.entries()) {
          const piece = mropePositions({ ids: turn.ids, grids: turn.grids, config, start: next });
          for (let axis = 0; axis < 3; axis++) {
            const from = axis * ids.length + length;
            const there = whole.positions.subarray(from, from + turn.ids.length);
            const here = piece.positions.subarray(axis * turn.ids.length, (axis + 1) * turn.ids.length);
            tally.within(`turn ${i} positions ${axis}`, maxDifference(here, there), 0);
          }
          next = piece.next;
          const logits = await decoder.extend(turn);
          length += turn.ids.length;
          tally.within(`turn ${i} logits`, maxDifference(logits, await forward(ids, length - 1)), 1e-4);
        }
        tally.equal('next position', next === whole.next);
      }),
    );

    it(
      'three AdamW steps are the same',
      check(async () => {
        const adamw = parity.adamw as AdamwCase;
        const input = parity[adamw.case] as ParityCase;
        parameters.gradients.zero();
        for (const [i, step] of adamw.steps.entries()) {
          const { loss } = await lossOf(input, imagesOf(adamw.case, input));
          const { gradNorm } = parameters.adamw({
            lr: adamw.lr,
            betas: adamw.betas,
            eps: adamw.eps,
            weightDecay: adamw.weight_decay,
            maxNorm: Number.POSITIVE_INFINITY,
          });
          tally.within(`adamw step ${i} loss`, Math.abs(loss - step.loss), 1e-3);
          tally.within(`adamw step ${i} grad_norm`, Math.abs(gradNorm / step.grad_norm - 1), 1e-3);
        }
        for (const [name, norm] of Object.entries(adamw.param_l2_after)) {
          if (isNoise(name)) continue;
          const weights = parameters.read(name);
          tally.within(`adamw l2 ${name}`, Math.abs(l2(weights) / norm - 1), 1e-3);
          const sum = weights.reduce((a, b) => a + b, 0);
          // A sum of n values of one norm is at most √n of it.
          const limit = 1e-3 * norm * Math.sqrt(weights.length);
          tally.within(`adamw sum ${name}`, Math.abs(sum - adamw.param_sum_after[name]!), limit);
        }
      }),
    );
  });
}
