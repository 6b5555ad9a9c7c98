/**
 * @file Whole episodes on videos that carry each frame's number in the picture. The numbers are read back from the patches that
 * went into the vision tower: environment, frame store, decoder, scaling, image processor and the rollout's order of images are all between.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FrameRef, Group } from '@frame-thinker/core';
import type { ImageInput, ImageProcessorConfig } from '@frame-thinker/qwen-vl';
import { type PolicyModel, type Prefix, rollout } from '@frame-thinker/rollout';
import { probeVideo, readIndexCode } from '@frame-thinker/video';
import type { EnvironmentSettings, WorkerInit } from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadPolicy, type Policy } from '../../packages/policy-worker/src/policy.ts';
import { createCodec, createPrompter } from '../../packages/policy-worker/src/prompts.ts';
import { H264_VIDEOS, OTHER_CODECS, renderBurntIn } from '../../packages/video/src/testing/burnt-in-videos.ts';

const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-pixels-'));
const FRAMES = 16;
const LOOKS = 4;
const look = { frames: FRAMES, maxWidth: 112, maxHeight: 56 };
const environment: EnvironmentSettings = {
  grammar: 'strict',
  template: 'chat',
  regimes: { limitSeconds: 300, short: look, long: look },
  systemPrompt: 'none',
  compat: 'none',
  registry: {},
  baseDir: folder,
};
const init: WorkerInit = {
  path: join(import.meta.dirname, '../../examples/agent/base'),
  dtype: 'float32',
  seed: 1,
  training: false,
  engine: { name: 'onnx', provider: 'cpu', threads: 1 },
  environment,
};
const limits = {
  slots: 4,
  maxPromptLength: 1000,
  maxResponseLength: 3000,
  singleResponseMaxTokens: 96,
  maxTurns: LOOKS + 1,
  maxImages: FRAMES * (LOOKS + 1),
};

let policy: Policy;
/** What the vision tower was given for each frame that was asked for. */
let seen: { ref: FrameRef; image: ImageInput }[] = [];
beforeAll(async () => {
  policy = await loadPolicy(init);
  const images = policy.library.images.bind(policy.library);
  policy.library.images = async (refs) => {
    const found = await images(refs);
    seen.push(...refs.map((ref, i) => ({ ref, image: found[i]! })));
    return found;
  };
});
afterAll(async () => {
  await policy.close();
  rmSync(folder, { recursive: true, force: true });
});

/** The picture that patches were made of: normalisation undone, patches of merge blocks put back in their places. */
function pictureOf({ grid: [, rows, columns], pixels }: ImageInput, config: ImageProcessorConfig, index: number) {
  const { patchSize: side, mergeSize: merge, temporalPatchSize: times, mean, std, rescaleFactor } = config;
  const [width, height] = [columns * side, rows * side];
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [row, column] = [Math.floor(y / side), Math.floor(x / side)];
      const block = Math.floor(row / merge) * (columns / merge) + Math.floor(column / merge);
      const patch = (block * merge + (row % merge)) * merge + (column % merge);
      for (let c = 0; c < 3; c++) {
        const value = pixels[((patch * 3 + c) * times * side + (y % side)) * side + (x % side)]!;
        data[3 * (y * width + x) + c] = Math.round((value * std[c]! + mean[c]!) / rescaleFactor);
      }
    }
  return { index, width, height, data };
}

/** Goes through the real model, but says what each episode's script says. The script is found by the block that the question names. */
function scripted(model: PolicyModel, scripts: readonly (readonly string[])[]): PolicyModel {
  const { tokenizer, imEndId } = policy.processor;
  const turns = scripts.map((script) => script.map((text) => [...tokenizer.encode(text), imEndId]));
  const blockOf = new WeakMap<Prefix, number>();
  const places = Array.from({ length: model.slots }, () => ({ block: 0, turn: 0, at: 0 }));
  const certain = ({ block, turn, at }: (typeof places)[number]): Float32Array => {
    const logits = new Float32Array(model.vocabSize).fill(-100);
    logits[turns[block]![turn]![at]!] = 100;
    return logits;
  };
  return {
    slots: model.slots,
    vocabSize: model.vocabSize,
    release: (slot) => model.release(slot),
    prefill: async (span) => {
      const block = Number(/block (\d+)/.exec(tokenizer.decode(span.ids, { skipSpecialTokens: false }))![1]);
      const prefix = { ...(await model.prefill(span)), logits: certain({ block, turn: 0, at: 0 }) };
      blockOf.set(prefix, block);
      return prefix;
    },
    fork: (prefix, slot) => {
      model.fork(prefix, slot);
      places[slot] = { block: blockOf.get(prefix)!, turn: 0, at: 0 };
    },
    extend: async (extensions) => {
      await model.extend(extensions);
      return extensions.map(({ slot }) => {
        places[slot] = { block: places[slot]!.block, turn: places[slot]!.turn + 1, at: 0 };
        return certain(places[slot]!);
      });
    },
    step: async (tokens) => {
      await model.step(tokens);
      const logits = new Float32Array(model.slots * model.vocabSize);
      tokens.forEach((id, slot) => {
        if (id < 0) return;
        places[slot]!.at++;
        logits.set(certain(places[slot]!), slot * model.vocabSize);
      });
      return logits;
    },
  };
}

describe('every frame that the model sees is the frame that was asked for', () => {
  for (const video of [...H264_VIDEOS, ...OTHER_CODECS].filter(({ rotated }) => !rotated))
    test(video.name, async () => {
      const videoPath = await renderBurntIn(folder, video);
      const { totalFrames } = await probeVideo(videoPath);
      // A look between a and b shows what lies strictly between; frame 0 is in the first look.
      const looks = Array.from({ length: Math.ceil((totalFrames - 1) / FRAMES) }, (_, k) => {
        const start = Math.min(k * FRAMES, totalFrames - 1 - FRAMES);
        const range = `${start} and ${start + FRAMES + 1}`;
        return `<think> look between ${range}</think><action>choose frames between ${range}</action>`;
      });
      const scripts = Array.from({ length: Math.ceil(looks.length / LOOKS) || 1 }, (_, block) => [
        ...looks.slice(block * LOOKS, (block + 1) * LOOKS),
        '<think> done</think><action>output answer: A</action>',
      ]);
      const groups = scripts.map(
        (_, block): Group => ({
          sample: {
            uid: `${video.file} ${block}`,
            prompt: [{ role: 'user', content: `block ${block}` }],
            videoPath,
            dataSource: 'd',
            envName: 'think_with_video',
            groundTruth: 'A',
            extraInfo: {},
          },
          position: block,
          n: 1,
          step: 1,
        }),
      );
      seen = [];
      const { library, processor } = policy;
      const trajectories = [];
      for await (const finished of rollout({
        model: scripted(policy.decoder(limits.slots), scripts),
        codec: createCodec(library, processor, environment),
        prompt: createPrompter(library, processor, environment),
        environment: (_, group) => policy.environment(environment, group),
        limits,
        sampling: { temperature: 1, topP: 1, topK: -1, doSample: false },
        seed: 1,
        groups,
      }))
        trajectories.push(...finished.trajectories);

      expect(trajectories.map(({ end }) => end)).toEqual(scripts.map(() => 'answer'));
      const wrong = seen.filter(
        ({ ref, image }) =>
          readIndexCode(pictureOf(image, processor.images, ref.index)) !== ref.index + (video.first ?? 0),
      );
      console.log(`pixels of the model, ${video.file}: ${wrong.length} wrong of ${seen.length}`);
      expect(wrong.map(({ ref }) => ref.index)).toEqual([]);
      // The references that were checked are those that the episodes record, and together they are the whole video.
      const recorded = trajectories.flatMap(({ frames }) => frames.map(({ index }) => index));
      expect(seen.map(({ ref }) => ref.index).sort((a, b) => a - b)).toEqual(recorded.sort((a, b) => a - b));
      expect(new Set(recorded).size).toBe(totalFrames);
      for (const { turns } of trajectories)
        for (const { frameIndices, observation } of turns)
          if (frameIndices)
            expect([...observation!.matchAll(/frame (\d+): /g)].map((match) => Number(match[1]))).toEqual(frameIndices);
    });
});
