/** @file Conformance of what a batch can hold: frames by reference, position jumps, Σ π², and a critic's values. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createFrameStore, renderScene } from '@frame-thinker/video';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  batchOf,
  cleanUp,
  distance,
  fixture,
  fixtures,
  gradientsOf,
  hasFixtures,
  init,
  norm,
  restore,
  scratch,
  start,
  stateOf,
  worst,
} from './setup.ts';
import type { WorkerClient } from './wire-client.ts';

const IDS = Int32Array.from({ length: 12 }, (_, i) => 10 + ((i * 7) % 50));
const MASK = Uint8Array.from(IDS, (_, i) => Number(i >= 4));
const row = { length: IDS.length, prompt_length: 4, frames: [], images: [] };

describe.runIf(hasFixtures)("a worker's batches, by the protocol alone", () => {
  let worker: WorkerClient;
  let vocabulary: number;
  beforeAll(async () => {
    worker = start();
    vocabulary = (await worker.call('init', init)).result.vocab_size as number;
  });
  afterAll(cleanUp);

  const score = async (rows: object[], more: object = {}, tensors: object = {}) => {
    const ids = Int32Array.from(rows.flatMap(() => [...IDS]));
    const mask = Uint8Array.from(rows.flatMap(() => [...MASK]));
    const params = { batch: { id: 'b', trajectories: rows }, temperature: 1, ban: [], ...more };
    return (await worker.call('forward', params, { ids, mask, ...tensors })).tensors;
  };

  it('give Σ π² and entropy of the distribution at the temperature without what is banned', async () => {
    const flat = await score([row], { temperature: 1e9, ban: [1, 2, 3], sum_pi_squared: true });
    const left = vocabulary - 3;
    const only = (value: number) => Float32Array.from(MASK, (m) => m * value);
    expect(worst(flat.sum_pi_squared!, only(1 / left))).toBeLessThan(1e-6);
    expect(worst(flat.entropy!, only(Math.log(left)))).toBeLessThan(1e-3);
    expect(worst(flat.logp!, only(-Math.log(left)))).toBeLessThan(1e-3);

    // Of two tokens that are left, one of them in the row: all follows from its log-prob.
    const pair = [10, 11];
    const ids = IDS.map((id, i) => (MASK[i] ? pair[i % 2]! : id));
    const ban = Array.from({ length: vocabulary }, (_, id) => id).filter((id) => !pair.includes(id));
    const two = await score([row], { ban, sum_pi_squared: true }, { ids });
    const p = Array.from(two.logp!, (x) => Math.exp(x));
    const squares = p.map((x, i) => MASK[i]! * (x * x + (1 - x) ** 2));
    const entropy = p.map((x, i) => (MASK[i] ? -x * Math.log(x) - (1 - x) * Math.log(1 - x) : 0));
    expect(p.some((x) => x > 0.01 && x < 0.99)).toBe(true);
    expect(worst(two.sum_pi_squared!, squares)).toBeLessThan(1e-5);
    expect(worst(two.entropy!, entropy)).toBeLessThan(1e-4);
    expect((await score([row])).sum_pi_squared).toBeUndefined();
  });

  it('have position jumps that count from a token on, and only by how far apart tokens are', async () => {
    const plain = (await score([row])).logp!;
    const jumped = (jumps: { at: number; by: number }[]) => score([{ ...row, jumps }]).then(({ logp }) => logp!);
    const late = await jumped([{ at: 8, by: 40 }]);
    // What ids[8] is, is told by ids[7].
    expect(worst(late.subarray(0, 9), plain.subarray(0, 9))).toBeLessThan(1e-5);
    expect(worst(late.subarray(9), plain.subarray(9))).toBeGreaterThan(1e-3);
    expect(worst(await jumped([{ at: 0, by: 40 }]), plain)).toBeLessThan(1e-3);
    const parts = [
      { at: 8, by: 30 },
      { at: 8, by: 10 },
    ];
    expect(worst(await jumped(parts), late)).toBeLessThan(1e-5);
    // A jump is its row's own.
    const both = (await score([{ ...row, jumps: [{ at: 8, by: 40 }] }, row])).logp!;
    expect(worst(both.subarray(0, IDS.length), late)).toBeLessThan(1e-5);
    expect(worst(both.subarray(IDS.length), plain)).toBeLessThan(1e-5);
  });

  it('have frames of videos by reference: the same as their pixels, and refused when they come out otherwise', async () => {
    const video = join(scratch, 'video.mp4');
    const box = { x: 8, y: 8, w: 40, h: 40, color: [200, 40, 40], start: 5, end: 15 } as const;
    const scene = { width: 112, height: 112, fps: 10, frames: 20, background: [10, 20, 30], boxes: [box] } as const;
    await renderScene(scene as unknown as Parameters<typeof renderScene>[0], video);
    const store = createFrameStore();
    const frames = await store.get(video, [0, 10], { width: 56, height: 56 });
    await store.close();
    // The images of a fixture's row make way for two of 56 x 56: four tokens each.
    const {
      image_token_id: pad,
      vision_start_token_id: opens,
      vision_end_token_id: closes,
    } = JSON.parse(readFileSync(join(fixtures, 'model/config.json'), 'utf8'));
    const picture = [opens, pad, pad, pad, pad, closes];
    const ids = Int32Array.from([10, 11, ...picture, ...picture, 12, 13, 14, 15]);
    const mask = Uint8Array.from(ids, (_, i) => Number(i >= ids.length - 3));
    const places = [3, 9];
    const base = { length: ids.length, prompt_length: 14 };
    const references = frames.map(({ width, height, data }, i) => ({
      ...{ video, index: [0, 10][i], width, height, position: places[i] },
      sha256: createHash('sha256').update(data).digest('hex'),
    }));
    const pixels = Uint8Array.from(frames.flatMap(({ data }) => [...data]));
    const sizes = places.map((position) => ({ width: 56, height: 56, position }));
    const forward = (rows: object[], images?: Uint8Array) => {
      const repeat = <T>(values: Iterable<T>): T[] => rows.flatMap(() => [...values]);
      const tensors = { ids: Int32Array.from(repeat(ids)), mask: Uint8Array.from(repeat(mask)) };
      const params = { batch: { id: 'f', trajectories: rows }, temperature: 1, ban: [] };
      return worker.ask('forward', params, { ...tensors, ...(images ? { images } : {}) });
    };
    const rows = [
      { ...base, frames: references, images: [] },
      { ...base, frames: [], images: sizes },
      { ...base, frames: [references[1]!], images: [sizes[0]!] },
    ];
    const half = pixels.subarray(0, pixels.length / 2);
    const answer = await forward(rows, Uint8Array.from([...pixels, ...half]));
    expect(answer.error).toBeUndefined();
    const logp = answer.tensors.logp!;
    const of = (i: number) => logp.subarray(i * ids.length, (i + 1) * ids.length);
    expect(norm(of(0))).toBeGreaterThan(0);
    expect(worst(of(1), of(0))).toBeLessThan(1e-5);
    expect(worst(of(2), of(0))).toBeLessThan(1e-5);
    const swapped = references.map((reference, i) => ({ ...reference, position: places[1 - i] }));
    const other = await forward([{ ...base, frames: swapped, images: [] }]);
    expect(worst(other.tensors.logp!, of(0))).toBeGreaterThan(1e-5);

    const wrong = [{ ...references[0]!, sha256: references[1]!.sha256 }, references[1]!];
    expect((await forward([{ ...base, frames: wrong, images: [] }])).error?.message).toContain(video);
    const lost = [{ ...references[0]!, video: `${video}.none` }, references[1]!];
    expect((await forward([{ ...base, frames: lost, images: [] }])).error).toBeDefined();
    const unchecked = references.map((reference) => ({ ...reference, sha256: '' }));
    expect(worst((await forward([{ ...base, frames: unchecked, images: [] }])).tensors.logp!, of(0))).toBeLessThan(
      1e-5,
    );
  });

  it("give a critic's values, and their gradients", async () => {
    const critic = start();
    const { result } = await critic.call('init', { ...init, role: 'critic' });
    expect(result.methods).not.toContain('rollout');
    const { batch, tensors } = batchOf(fixture());
    const mask = tensors.mask as Uint8Array;
    const values = async () => (await critic.call('forward', { batch }, tensors)).tensors.values as Float32Array;
    const before = await values();
    expect(before.filter((x, i) => !mask[i] && x !== 0)).toHaveLength(0);
    expect(before.filter((x, i) => mask[i] && x !== 0).length).toBeGreaterThan(0);

    const d = Float32Array.from(mask, (m, i) => m * Math.cos(i));
    await critic.call('zero_gradients');
    const answer = await critic.call('backward', { batch }, { ...tensors, d_values: d });
    expect(worst(answer.tensors.values!, before)).toBeLessThan(1e-5);
    const gradients = await gradientsOf(critic);
    const state = await stateOf(critic);
    const ranges = new Map<string, [number, number]>();
    let at = 0;
    for (const [name, { weight }] of state.parameters) {
      ranges.set(name, [at, at + weight.length]);
      at += weight.length;
    }
    const part = (name: string) => gradients.subarray(...ranges.get(name)!);
    expect(state.parameters.get('score.bias')!.shape).toEqual([1]);
    // A value is linear in the head: the bias's gradient is the sum of the cotangents, the weight's times the weight what is left of Σ d·v.
    const total = d.reduce((a, b) => a + b, 0);
    expect(Math.abs(part('score.bias')[0]! - total)).toBeLessThan(1e-4 * norm(d));
    const { weight } = state.parameters.get('score.weight')!;
    const bias = state.parameters.get('score.bias')!.weight[0]!;
    const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);
    expect(Math.abs(dot(part('score.weight'), weight) + bias * total - dot(d, before))).toBeLessThan(
      1e-3 * norm(before),
    );

    // A small step along the gradient changes Σ d·v by its squared norm.
    const moved = async (by: number): Promise<number> => {
      const parameters = new Map(
        [...state.parameters].map(([name, one]) => {
          const [from] = ranges.get(name)!;
          return [name, { ...one, weight: one.weight.map((x, i) => x + by * gradients[from + i]!) }] as const;
        }),
      );
      await restore(critic, { step: 0, parameters });
      return dot(d, await values());
    };
    const by = 1e-3 / norm(gradients);
    const slope = ((await moved(by)) - (await moved(-by))) / (2 * by);
    expect(Math.abs(slope / dot(gradients, gradients) - 1)).toBeLessThan(2e-2);

    await restore(critic, state);
    expect(distance(await values(), before)).toBe(0);
    expect((await critic.ask('backward', { batch }, tensors)).error?.message).toMatch(/d_values/);
    critic.end();
    expect(await critic.exit).toBe(0);
  });
});
