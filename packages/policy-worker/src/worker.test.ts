import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf, openHfFolder } from '@frame-thinker/checkpoint';
import { type Group, type ImageSource, InputError, type SamplingOptions, type Trajectory } from '@frame-thinker/core';
import { createFrameStore, renderScene } from '@frame-thinker/video';
import {
  type BatchRow,
  createLocalPool,
  type PolicyWorker,
  type ReplacedFrames,
  type WorkerInit,
} from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveState, stateOf, type WorkerState } from '../../worker-pool/src/testing/worker-state.ts';
import { workerEntry } from './index.ts';

const path = join(process.env.GOLDEN_DIR ?? join(import.meta.dirname, '../../../tests/fixtures'), 'qwen/model');
const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-policy-'));
const video = join(folder, 'video.mp4');
const look = { frames: 2, maxWidth: 56, maxHeight: 56 };
const init: WorkerInit = {
  path,
  dtype: 'float32',
  seed: 3,
  engine: { name: 'onnx', provider: 'cpu', threads: 1 },
  rollout: {
    slots: 3,
    maxPromptLength: 400,
    maxResponseLength: 60,
    singleResponseMaxTokens: 12,
    maxTurns: 3,
    maxImages: 8,
  },
  environment: {
    grammar: 'strict',
    template: 'chat',
    regimes: { limitSeconds: 300, short: look, long: look },
    systemPrompt: 'none',
    compat: 'none',
    registry: {},
    baseDir: folder,
  },
};
const sampling: SamplingOptions = { temperature: 0.7, topP: 1, topK: -1, doSample: true };
const group = (uid: string, videoPath: string, position: number): Group => ({
  sample: {
    uid,
    prompt: [{ role: 'user', content: 'what is it?' }],
    videoPath,
    dataSource: 'd',
    envName: 'think_with_video',
    groundTruth: 'A',
    extraInfo: {},
  },
  position,
  n: 2,
  step: 1,
});
const adamw = { lr: 1e-3, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay: 0.01, maxNorm: 1 };

let worker: PolicyWorker;
let score: { temperature: number; ban: readonly number[] };
beforeAll(async () => {
  await renderScene(
    {
      width: 112,
      height: 112,
      fps: 10,
      frames: 60,
      background: [10, 20, 30],
      boxes: [{ x: 8, y: 8, w: 40, h: 40, color: [200, 40, 40], start: 20, end: 40 }],
    },
    video,
  );
  worker = await createLocalPool({ entry: workerEntry, init });
  score = { temperature: sampling.temperature, ban: worker.capabilities.visionIds };
});
afterAll(async () => {
  await worker?.close();
  rmSync(folder, { recursive: true, force: true });
});

const rolled = async (pool: PolicyWorker, groups: Group[]): Promise<Trajectory[]> => {
  const out: Trajectory[] = [];
  for await (const trajectories of pool.rollout(groups, sampling)) out.push(...trajectories);
  return out.sort((a, b) => a.uid.localeCompare(b.uid) || a.sample - b.sample);
};
const groups = [group('q0', video, 0), group('q1', video, 1)];
const cotangents = (trajectories: Trajectory[]) => ({
  dLogProbs: trajectories.map(({ mask }, i) => Float32Array.from(mask, (m) => (m * (i % 2 ? 1 : -2)) / 10)),
  dEntropy: trajectories.map(({ mask }) => new Float32Array(mask.length)),
});
const same = (a: Float32Array, b: Float32Array): boolean => Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
const sameWeights = (a: WorkerState, b: WorkerState): void => {
  expect(a.step).toBe(b.step);
  for (const [name, { weight, expAvg, expAvgSq }] of a.parameters) {
    const other = b.parameters.get(name)!;
    const equal = [same(weight, other.weight), same(expAvg, other.expAvg), same(expAvgSq, other.expAvgSq)];
    expect(equal, name).toEqual([true, true, true]);
  }
};

describe('a policy worker', () => {
  it('says what it is, and answers health while it works', async () => {
    expect(worker.capabilities).toMatchObject({ engine: 'onnx', provider: 'cpu' });
    expect(worker.capabilities.visionIds).toHaveLength(4);
    const working = rolled(worker, groups);
    const health = await worker.health();
    expect(health).toMatchObject({ busy: 'rollout' });
    expect(health.rssBytes).toBeGreaterThan(1e7);
    await working;
    expect((await worker.health()).busy).toBeUndefined();
  });

  it('rolls out what it scores the same, trains on it, and goes back to saved weights bit for bit', async () => {
    const trajectories = await rolled(worker, groups);
    expect(trajectories.map(({ uid, sample }) => `${uid}.${sample}`)).toEqual(['q0.0', 'q0.1', 'q1.0', 'q1.1']);
    for (const { frames, ids, promptLength, mask } of trajectories) {
      expect(frames.map(({ index, width, height }) => [index, width, height])).toEqual([
        [0, 56, 56],
        [59, 56, 56],
      ]);
      expect(mask.subarray(0, promptLength).some((m) => m)).toBe(false);
      expect(ids.length).toBeGreaterThan(promptLength);
    }
    const batch = { id: 'b', trajectories };
    const before = await worker.forward(batch, score);
    trajectories.forEach(({ logProbs, mask }, i) => {
      logProbs.forEach((x, k) => {
        if (mask[k]) expect(Math.abs(x - before.logProbs[i]![k]!)).toBeLessThan(1e-4);
      });
    });

    const saved = await stateOf(worker);
    const back = await worker.backward(batch, cotangents(trajectories), score);
    expect(back.logProbs).toEqual(before.logProbs);
    const update = await worker.applyUpdate(adamw);
    expect(update.applied).toBe(true);
    expect(update.gradNorm).toBeGreaterThan(0);
    const trained = await stateOf(worker);
    expect(trained.step).toBe(1);
    const changed = await worker.forward(batch, score);
    expect(changed.logProbs).not.toEqual(before.logProbs);

    const exported = join(folder, 'exported');
    await worker.exportTo(exported);
    const files = openHfFolder(exported);
    const [name, { weight }] = [...trained.parameters].find(([key]) => key.endsWith('embed_tokens.weight'))!;
    expect(same(files.read(name.replace('model.language_model.', 'model.')), weight)).toBe(true);
    files.close();

    await giveState(worker, saved);
    sameWeights(await stateOf(worker), saved);
    expect((await worker.forward(batch, score)).logProbs).toEqual(before.logProbs);

    // Two workers share the work and apply the same update.
    const pair = await createLocalPool({ entry: workerEntry, init, workers: 2 });
    try {
      const halves = [trajectories.slice(0, 2), trajectories.slice(2)];
      for (const pool of [worker, pair]) {
        await Promise.all(
          halves.map((half, i) => pool.backward({ id: `h${i}`, trajectories: half }, cotangents(half), score)),
        );
        await pool.applyUpdate(adamw);
      }
      sameWeights(await stateOf(pair), await stateOf(worker));
    } finally {
      await pair.close();
    }
    await giveState(worker, saved);
  });

  it('takes images as references, as pixels and as files alike, and position jumps', async () => {
    const [trajectory] = await rolled(worker, [groups[0]!]);
    const { frames, ids, mask, promptLength } = trajectory!;
    const store = createFrameStore();
    const pixels = await store.get(video, [0, 59], { width: 56, height: 56 });
    await store.close();
    const images = pixels.map(({ width, height, data }, i) => ({ width, height, data, position: frames[i]!.position }));
    const rows: BatchRow[] = [
      { ids, mask, promptLength, frames },
      { ids, mask, promptLength, frames: [], images },
      { ids, mask, promptLength, frames: [frames[1]!], images: [images[0]!] },
      { ids, mask, promptLength, frames, jumps: [{ at: promptLength, by: 50 }] },
    ];
    const { logProbs } = await worker.forward({ id: 'x', trajectories: rows }, score);
    expect(logProbs[1]).toEqual(logProbs[0]);
    expect(logProbs[2]).toEqual(logProbs[0]);
    expect(logProbs[3]).not.toEqual(logProbs[0]);

    const prompt = [{ role: 'user' as const, content: 'what is <image> and <image>?' }];
    const file = join(folder, 'frame.mp4');
    copyFileSync(video, file);
    const given = async (sources: ImageSource[]): Promise<Int32Array> => {
      const sample = { ...groups[0]!.sample, prompt, images: sources };
      const [one] = await rolled(worker, [{ ...groups[0]!, sample, n: 1 }]);
      expect(one!.frames).toHaveLength(2);
      return one!.ids;
    };
    const rgb = pixels.map(({ width, height, data }): ImageSource => ({ kind: 'rgb', width, height, data }));
    const references = frames.map(({ position: _, ...frame }): ImageSource => ({ kind: 'frame', frame }));
    expect(await given(rgb)).toEqual(await given(references));
    const bytes = readFileSync(file);
    expect(
      await given([
        { kind: 'path', path: file },
        { kind: 'bytes', bytes },
      ]),
    ).toEqual(
      await given([
        { kind: 'bytes', bytes },
        { kind: 'path', path: file },
      ]),
    );
  });

  it('leaves no file of an image behind when it ends', async () => {
    const left = (): string[] =>
      readdirSync(tmpdir()).filter((name) => name.startsWith(`frame-thinker-${process.pid}-`));
    const before = left();
    const pool = await createLocalPool({ entry: workerEntry, init: { ...init, training: false } });
    const prompt = [{ role: 'user' as const, content: 'what is <image>?' }];
    const images: ImageSource[] = [{ kind: 'bytes', bytes: readFileSync(video) }];
    await rolled(pool, [{ ...groups[0]!, sample: { ...groups[0]!.sample, prompt, images }, n: 1 }]);
    const made = left().filter((name) => !before.includes(name));
    expect(made).toHaveLength(1);
    expect(readdirSync(join(tmpdir(), made[0]!))).toEqual([expect.stringMatching(/^images-/)]);
    await pool.close();
    expect(left()).toEqual(before);
  });

  it('opens a turn that may only answer, and shows grey or other frames where it is told to', async () => {
    const second = join(folder, 'second.mp4');
    await renderScene({ width: 112, height: 112, fps: 10, frames: 30, background: [90, 20, 30], boxes: [] }, second);
    const one = async (framesFrom?: ReplacedFrames) => {
      const environment = { ...init.environment!, answerPrefill: 'so', ...(framesFrom ? { framesFrom } : {}) };
      const pool = await createLocalPool({ entry: workerEntry, init: { ...init, environment, training: false } });
      try {
        return (await rolled(pool, [{ ...groups[0]!, n: 1, answerOnly: true }]))[0]!;
      } finally {
        await pool.close();
      }
    };
    const [real, grey, other] = [
      await one(),
      await one({ kind: 'grey', level: 128 }),
      await one({ kind: 'other', videos: [video, second] }),
    ];
    for (const { turns, mask, promptLength } of [real, grey, other]) {
      expect(turns).toHaveLength(1);
      expect(turns[0]!.text.startsWith('so')).toBe(true);
      expect(mask[promptLength]).toBe(0);
      expect(mask[mask.length - 1]).toBe(1);
    }
    const shown = ({ frames }: Trajectory) => frames.map((frame) => [frame.video, frame.index]);
    expect(shown(real)).toEqual(shown(grey));
    expect(grey.frames[0]!.sha256).toBe(grey.frames[1]!.sha256);
    expect(grey.frames[0]!.sha256).not.toBe(real.frames[0]!.sha256);
    expect(shown(other)).toEqual([
      [second, 0],
      [second, 29],
    ]);
  });

  it('survives bad calls, and reports unreadable videos as data', async () => {
    const frame = { video, index: 1, width: 56, height: 56, sha256: '0'.repeat(64), position: 1 };
    const row = { ids: Int32Array.of(1, 2), mask: Uint8Array.of(0, 1), promptLength: 1, frames: [frame] };
    await expect(worker.forward({ id: 'x', trajectories: [row] }, score)).rejects.toThrow(
      /frame 1 at 56x56 has other pixels/,
    );
    await expect(worker.exportTo(join(path, 'config.json'))).rejects.toThrow();
    const missing = await rolled(worker, [group('gone', join(folder, 'gone.mp4'), 0)]);
    expect(missing.map(({ end, ids }) => [end, ids.length])).toEqual([
      ['decode_error', 0],
      ['decode_error', 0],
    ]);
    expect(missing[0]!.turns[0]!.error).toContain('gone.mp4');
    await expect(
      rolled(worker, [{ ...group('bad', video, 0), sample: { ...group('bad', video, 0).sample, prompt: [] } }]),
    ).rejects.toThrow(InputError);
    expect((await rolled(worker, [groups[0]!])).length).toBe(2);
  });

  it('of a folder without a model is one clear error', async () => {
    const wrong = createLocalPool({ entry: workerEntry, init: { ...init, path: folder } });
    await expect(wrong).rejects.toThrow(InputError);
    await expect(wrong).rejects.toThrow(/not a model folder/);
  });
});
