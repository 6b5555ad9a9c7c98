/**
 * @file Conformance to docs/worker-protocol.md, through the pipes alone, of the worker that `pnpm test:worker -- "COMMAND"` names; without it, of
 * this repository's. Expected values are those of transformers and torch (tests/fixtures/qwen) and of float64 arithmetic done here.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  aligned,
  batchOf,
  cleanUp,
  distance,
  fixture,
  fixtures,
  gradientsOf,
  hasFixtures,
  init,
  limits,
  norm,
  scratch,
  start,
  stateOf,
  wholeTensors,
  worst,
} from './setup.ts';
import { blob, framed, lengthOf, type WorkerClient } from './wire-client.ts';

const group = (uid: string, position: number) => ({
  ...{ position, n: 2, step: 1 },
  sample: {
    ...{ uid, data_source: 'd', ground_truth: 'A', extra_info: { someKey: 1 } },
    prompt: [{ role: 'user', content: 'what is it?' }],
  },
});
const SAMPLED = { temperature: 1, top_p: 1, top_k: -1, do_sample: true };
async function roll(worker: WorkerClient, groups: object[], sampling: object = SAMPLED) {
  const { partial, result } = await worker.call('rollout', { groups, sampling });
  expect(result.groups).toBe(groups.length);
  const byGroup = partial.toSorted((a, b) => Number(a.partial!.group) - Number(b.partial!.group));
  return byGroup.map(({ partial: part, tensors }) => ({
    rows: part!.trajectories as { uid: string; sample: number; length: number; prompt_length: number; end: string }[],
    tensors,
  }));
}

describe.runIf(hasFixtures)('a worker, by the protocol alone', () => {
  let worker: WorkerClient;
  let capabilities: Record<string, unknown>;
  beforeAll(async () => {
    worker = start();
    capabilities = (await worker.call('init', init)).result;
  });
  afterAll(cleanUp);

  it('says what it is', async () => {
    const { parameters } = await stateOf(worker);
    const size = [...parameters.values()].reduce((sum, { weight }) => sum + weight.length, 0);
    const { vocab_size } = JSON.parse(readFileSync(join(fixtures, 'model/config.json'), 'utf8')).text_config ?? {};
    expect(capabilities.parameters).toBe(size);
    if (vocab_size !== undefined) expect(capabilities.vocab_size).toBe(vocab_size);
    expect(capabilities.methods).toBeInstanceOf(Array);
    expect(capabilities.vision_ids).toHaveLength(4);
    expect((await worker.call('health')).result).toMatchObject({ pid: expect.any(Number), up_ms: expect.any(Number) });
  });

  it('has the log-probs, entropies and gradients of torch', async () => {
    const golden = fixture();
    const { batch, tensors } = batchOf(golden);
    const names = [...(await stateOf(worker)).parameters].map(([name, { weight }]) => ({ name, size: weight.length }));
    const { kl_entropy: given } = golden.cases;
    const { temperature } = given!.options;
    const rows = given!.trajectories;
    const expected = [aligned(rows.map((r) => r.log_probs)), aligned(rows.map((r) => r.entropy))];
    const forward = await worker.call('forward', { batch, temperature, ban: [] }, tensors);
    expect(worst(forward.tensors.logp!, expected[0]!, tensors.mask)).toBeLessThan(1e-4);
    expect(worst(forward.tensors.entropy!, expected[1]!, tensors.mask)).toBeLessThan(1e-4);
    const unscored = forward.tensors.logp!.filter((_, i) => !tensors.mask![i]);
    expect(norm(unscored)).toBe(0);

    await worker.call('zero_gradients');
    const cotangents = {
      d_logp: aligned(rows.map((r) => r.d_logp)),
      d_entropy: aligned(rows.map((r) => r.d_entropy)),
    };
    const backward = () => worker.call('backward', { batch, temperature, ban: [] }, { ...tensors, ...cotangents });
    expect(worst((await backward()).tensors.logp!, expected[0]!, tensors.mask)).toBeLessThan(1e-4);
    const once = await gradientsOf(worker);
    expect(Math.abs(norm(once) / given!.grad_norm - 1)).toBeLessThan(1e-3);
    let at = 0;
    for (const { name, size } of names) {
      const ours = norm(once.subarray(at, at + size));
      at += size;
      // The true gradient of a key's bias is 0: what is left is rounding.
      if (!name.endsWith('k_proj.bias')) expect(Math.abs(ours / given!.grad_norms[name]! - 1), name).toBeLessThan(1e-3);
    }
    expect(at).toBe(once.length);
    const whole = Object.entries(wholeTensors()).filter(([name]) => name.startsWith('kl_entropy.grad.'));
    expect(whole.length).toBeGreaterThan(2);
    for (const [key, torch] of whole) {
      const name = key.slice('kl_entropy.grad.'.length);
      if (name.endsWith('k_proj.bias')) continue;
      const index = names.findIndex((one) => one.name === name);
      const start = names.slice(0, index).reduce((sum, one) => sum + one.size, 0);
      const ours = once.subarray(start, start + names[index]!.size);
      expect(distance(ours, torch), name).toBeLessThan(1e-3);
    }
    await backward();
    const twice = await gradientsOf(worker);
    expect(norm(twice.map((x, i) => x - 2 * once[i]!)) / norm(twice)).toBeLessThan(1e-6);
    await worker.call('zero_gradients');
    expect(norm(await gradientsOf(worker))).toBe(0);
  });

  it('rolls out the same twice, alone or beside others, within the limits', async (context) => {
    if (!(capabilities.methods as string[]).includes('rollout')) context.skip('needs a worker with the method rollout');
    const both = await roll(worker, [group('a', 0), group('b', 1)]);
    const again = await roll(worker, [group('a', 0), group('b', 1)]);
    expect(again.map(({ tensors }) => tensors)).toEqual(both.map(({ tensors }) => tensors));
    const [alone] = await roll(worker, [group('b', 1)]);
    expect(alone!.tensors.ids).toEqual(both[1]!.tensors.ids);
    expect(both.map(({ rows }) => rows.map(({ uid, sample }) => `${uid}${sample}`))).toEqual([
      ['a0', 'a1'],
      ['b0', 'b1'],
    ]);
    for (const { rows, tensors } of both) {
      let at = 0;
      for (const { length, prompt_length } of rows) {
        const mask = tensors.mask!.subarray(at, at + length);
        expect(norm(mask.subarray(0, prompt_length))).toBe(0);
        expect(prompt_length).toBeLessThanOrEqual(limits.max_prompt_length);
        expect(length - prompt_length).toBeLessThanOrEqual(limits.max_response_length);
        expect(norm(mask)).toBeGreaterThan(0);
        at += length;
      }
      expect([tensors.ids!.length, tensors.mask!.length, tensors.logp!.length]).toEqual([at, at, at]);
      const lengths = rows.map(({ length, prompt_length }) => ({ length, prompt_length, frames: [], images: [] }));
      const scored = await worker.call(
        'forward',
        { batch: { id: 'r', trajectories: lengths }, temperature: 1, ban: capabilities.vision_ids },
        { ids: tensors.ids!, mask: tensors.mask! },
      );
      expect(worst(scored.tensors.logp!, tensors.logp!)).toBeLessThan(1e-3);
    }
  });

  it('samples as it is told, and within the length it is told', async (context) => {
    if (!(capabilities.methods as string[]).includes('rollout')) context.skip('needs a worker with the method rollout');
    const greedy = await roll(worker, [group('a', 0)], { ...SAMPLED, temperature: 0 });
    const [{ rows, tensors }] = greedy as [(typeof greedy)[number]];
    const [first, second] = rows.map(({ length }, i) =>
      tensors.ids!.subarray(i * rows[0]!.length, i * rows[0]!.length + length),
    );
    expect(second).toEqual(first);
    for (const likeliest of [{ do_sample: false }, { top_k: 1 }, { top_p: 1e-9 }])
      expect((await roll(worker, [group('a', 0)], { ...SAMPLED, ...likeliest }))[0]!.tensors.ids).toEqual(tensors.ids);
    expect((await roll(worker, [group('a', 0)]))[0]!.tensors.ids).not.toEqual(tensors.ids);

    const other = start();
    const short = { ...init.rollout, max_response_length: 6 };
    await other.call('init', { ...init, rollout: short });
    const lengths = (await roll(other, [group('a', 0), group('b', 1)])).flatMap(({ rows: cut }) =>
      cut.map(({ length, prompt_length }) => length - prompt_length),
    );
    expect(Math.max(...lengths)).toBe(6);
    other.end();
    expect(await other.exit).toBe(0);
  });

  it('answers health while a call runs', async () => {
    const { batch, tensors } = batchOf(fixture());
    const calls = Array.from({ length: 4 }, () => worker.send('forward', { batch, temperature: 1, ban: [] }, tensors));
    const health = worker.send('health');
    const replies = [];
    for (let i = 0; i <= calls.length; i++) replies.push(await worker.next());
    const order = replies.map(({ id }) => id);
    expect(order.filter((id) => id !== health)).toEqual(calls);
    expect(order.indexOf(health)).toBeLessThan(calls.length);
    expect(replies.find(({ id }) => id === health)!.result).toMatchObject({
      busy: 'forward',
      busy_ms: expect.any(Number),
    });
  });

  it('answers wrong calls with an error and serves on', async () => {
    const tensors = { ids: Int32Array.of(1, 2, 3), mask: Uint8Array.of(0, 1, 1) };
    const row = { length: 3, prompt_length: 1, frames: [], images: [] };
    const params = { batch: { id: 'x', trajectories: [row] }, temperature: 1, ban: [] };
    const { error } = await worker.ask('no_such_method');
    expect(error).toMatchObject({ type: expect.any(String), message: expect.any(String), trace: expect.any(String) });
    expect((await worker.ask('forward', params, { ids: tensors.ids })).error?.message).toMatch(/mask/);
    expect((await worker.ask('forward', params, { ...tensors, ids: tensors.ids.subarray(1) })).error).toBeDefined();
    const floats = { ...tensors, ids: Float32Array.from(tensors.ids) };
    expect((await worker.ask('forward', params, floats)).error?.message).toMatch(/ids/);
    expect((await worker.ask('backward', params, tensors)).error?.message).toMatch(/d_logp/);
    expect((await worker.ask('gradients_in', {}, { gradients: Float64Array.of(1) })).error).toBeDefined();
    await worker.call('zero_gradients');
    expect((await worker.call('forward', params, tensors)).tensors.logp).toHaveLength(3);

    // What can't be read has no call: an error of id 0, and the next frame counts.
    const call = (text: string): Buffer => framed(blob({ call: text }));
    for (const bytes of [
      call('{"v": 1, "id": 900, '),
      call('[]'),
      call('{"v": 2, "id": 900, "method": "health", "params": {}}'),
      call('{"v": 1, "method": "health", "params": {}}'),
      call('{"v": 1, "id": 900, "params": {}}'),
      call('{"v": 1, "id": 900, "method": "health", "params": 3}'),
      framed(Buffer.from('no blob')),
      framed(Buffer.alloc(0)),
      framed(Buffer.concat([lengthOf(1e6), Buffer.from('{}')])),
      framed(Buffer.concat([blob({ call: '{"v":1,"id":900,"method":"health"}' }), Buffer.from('left over')])),
    ]) {
      worker.write(bytes);
      expect(await worker.next()).toMatchObject({ v: 1, id: 0, error: { type: 'ProtocolError' } });
    }
    expect((await worker.call('health')).result.pid).toBeGreaterThan(0);
  });

  it('needs init, refuses what is no model, and answers calls in order', async () => {
    const fresh = start();
    expect((await fresh.ask('gradients_out')).error).toBeDefined();
    expect((await fresh.ask('init', { ...init, path: scratch })).error?.type).toBe('InputError');
    const ids = [fresh.send('gradients_out'), fresh.send('forward'), fresh.send('no_such_method')];
    for (const id of ids) expect((await fresh.next()).id).toBe(id);
    fresh.end();
    expect(await fresh.exit).toBe(0);
  });

  it('ends with its input, inside a frame too, and at a length that cannot be', async () => {
    const [truncated, giant] = [start(), start()];
    truncated.write(lengthOf(1000));
    truncated.write(Buffer.from('only this'));
    truncated.end();
    giant.write(lengthOf(2n ** 40n));
    expect(await giant.next()).toMatchObject({ id: 0, error: { type: 'ProtocolError' } });
    expect(await giant.exit).not.toBe(0);
    expect(await truncated.exit).toBe(0);
    worker.end();
    expect(await worker.exit).toBe(0);
  });
});
