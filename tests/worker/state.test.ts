/** @file Conformance of what a worker holds: AdamW, states and gradient sums in files, exported folders. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  batchOf,
  cleanUp,
  expectSame,
  fixture,
  gradientsOf,
  hasFixtures,
  init,
  norm,
  restore,
  scratch,
  shardName,
  start,
  stateOf,
  worst,
} from './setup.ts';
import { blob, readBlob, type WorkerClient } from './wire-client.ts';

describe.runIf(hasFixtures)("a worker's state, by the protocol alone", () => {
  let worker: WorkerClient;
  let methods: string[];
  beforeAll(async () => {
    worker = start();
    methods = (await worker.call('init', init)).result.methods as string[];
  });
  afterAll(cleanUp);

  it('steps as AdamW in float64, and goes back to a saved state bit for bit', async () => {
    const saved = await stateOf(worker);
    const reference = [...saved.parameters.values()].map(({ weight, m, v }) =>
      [weight, m, v].map((x) => Float64Array.from(x)),
    );
    const size = reference.reduce((sum, [w]) => sum + w!.length, 0);
    const [lr, b1, b2, eps, decay] = [1e-2, 0.9, 0.99, 1e-8, 0.1];
    for (const [step, maxNorm] of [1, null, 0.5].entries()) {
      const g = Float64Array.from({ length: size }, (_, i) => Math.sin(i * 0.7 + step) * 1e-3);
      await worker.call('gradients_in', {}, { gradients: g });
      const options = { lr, betas: [b1, b2], eps, weight_decay: decay, max_norm: maxNorm };
      const { result } = await worker.call('apply_update', options);
      const total = norm(g);
      expect(result.applied).toBe(true);
      expect(Math.abs((result.grad_norm as number) / total - 1)).toBeLessThan(1e-6);
      const scale = maxNorm === null ? 1 : Math.min(1, maxNorm / (total + 1e-6));
      const t = saved.step + step + 1;
      let at = 0;
      for (const [w, m, v] of reference)
        for (let i = 0; i < w!.length; i++, at++) {
          const d = g[at]! * scale;
          m![i] = b1 * m![i]! + (1 - b1) * d;
          v![i] = b2 * v![i]! + (1 - b2) * d * d;
          w![i] = w![i]! * (1 - lr * decay);
          w![i]! -= ((lr / (1 - b1 ** t)) * m![i]!) / (Math.sqrt(v![i]! / (1 - b2 ** t)) + eps);
        }
    }
    const after = await stateOf(worker);
    expect(after.step).toBe(saved.step + 3);
    expect(norm(await gradientsOf(worker))).toBe(0);
    for (const [i, [name, { weight, m, v }]] of [...after.parameters].entries())
      for (const [k, ours] of [weight, m, v].entries()) {
        const want = reference[i]![k]!;
        expect(norm(ours.map((x, j) => x - want[j]!)), `${name} ${k}`).toBeLessThanOrEqual(2e-5 * norm(want));
      }

    const endless = new Float64Array(size).fill(Number.POSITIVE_INFINITY);
    await worker.call('gradients_in', {}, { gradients: endless });
    const options = { lr, betas: [b1, b2], eps, weight_decay: decay, max_norm: 1 };
    expect((await worker.call('apply_update', options)).result).toMatchObject({ grad_norm: null, applied: false });
    expectSame(await stateOf(worker), after);

    await restore(worker, saved);
    expectSame(await stateOf(worker), saved);
  });

  const adamw = { lr: 1e-2, betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.1, max_norm: null };
  /** An update with a gradient of sines. */
  async function update(): Promise<void> {
    const length = (await gradientsOf(worker)).length;
    await worker.call('gradients_in', {}, { gradients: Float64Array.from({ length }, (_, i) => Math.sin(i) * 1e-3) });
    await worker.call('apply_update', adamw);
  }

  it('is saved in shards of rows, and loaded from them', async () => {
    await update();
    const state = await stateOf(worker);
    const world = 3;
    const path = join(scratch, 'shards');
    for (const rank of [2, 0, 1])
      expect((await worker.call('save', { path, rank, world_size: world })).result).toMatchObject({ step: state.step });
    const names = ['model', 'optim'].flatMap((kind) => [0, 1, 2].map((rank) => shardName(kind, world, rank)));
    expect(readdirSync(path).sort()).toEqual(['fsdp_config.json', ...names].sort());
    const config = JSON.parse(readFileSync(join(path, 'fsdp_config.json'), 'utf8'));
    expect(config).toEqual({ FSDP_version: 2, world_size: world });
    const files = names.map((name) => readBlob(readFileSync(join(path, name))));
    for (const [name, { shape, weight, m, v }] of state.parameters)
      for (const [suffix, whole, kind] of [
        ['', weight, 0],
        ['.exp_avg', m, 1],
        ['.exp_avg_sq', v, 1],
      ] as const) {
        const parts = files.slice(kind * world, kind * world + world).map(({ metadata, tensors, shapes }, rank) => {
          expect([metadata.rank, metadata.world_size]).toEqual([String(rank), String(world)]);
          const rows = shape[0] ?? 1;
          const offset = Math.min(rows, rank * Math.ceil(rows / world));
          expect(JSON.parse(metadata.shards!)[name + suffix]).toEqual({ dim: 0, shape, offset });
          expect(shapes[name + suffix]!.slice(1)).toEqual(shape.slice(1));
          return tensors[name + suffix] as Float32Array;
        });
        expect(worst(Float32Array.from(parts.flatMap((part) => [...part])), whole), name + suffix).toBe(0);
      }

    await update();
    expect((await stateOf(worker)).step).toBe(state.step + 1);
    await worker.call('gradients_in', {}, { gradients: (await gradientsOf(worker)).fill(1) });
    await worker.call('load', { path, step: state.step });
    expectSame(await stateOf(worker), state);
    expect(norm(await gradientsOf(worker))).toBe(0);
    rmSync(join(path, names[1]!));
    expect((await worker.ask('load', { path, step: 1 })).error?.message).toMatch(/rank_1/);
    expect((await worker.ask('save', { path, rank: 3, world_size: 3 })).error).toBeDefined();
    expectSame(await stateOf(worker), state);
  });

  it('has gradient sums that go through files, in parts', async (context) => {
    if (!methods.includes('gradients_add')) context.skip('needs a worker with the method gradients_add');
    const pathOf = (name: string): string => join(scratch, `${name}.safetensors`);
    const given = (name: string, gradients: Float64Array): string => {
      writeFileSync(pathOf(name), blob({}, { gradients }));
      return pathOf(name);
    };
    const read = (path: string): Float64Array => readBlob(readFileSync(path)).tensors.gradients as Float64Array;
    const length = (await gradientsOf(worker)).length;
    const sums = Float64Array.from({ length }, (_, i) => Math.cos(i) / 3);
    await worker.call('gradients_in', { paths: [given('all', sums)] });
    expect(worst(await gradientsOf(worker), sums)).toBe(0);
    // Cut as rows are: the last part is the shorter one.
    const parts = [0, 1, 2].map((part) => pathOf(`part-${part}`));
    const answer = await worker.call('gradients_out', { paths: parts });
    expect(answer.tensors).toEqual({});
    const chunk = Math.ceil(length / 3);
    for (const [part, path] of parts.entries())
      expect(worst(read(path), sums.subarray(part * chunk, (part + 1) * chunk))).toBe(0);
    // Added in the order given: with these, in no other.
    const own = read(parts[1]!);
    const large = own.map((x, i) => (i % 2 ? 1 : -1) * 1e16 * x);
    const addends = [
      given('large', large),
      parts[1]!,
      given(
        'less',
        large.map((x) => -x),
      ),
    ];
    await worker.call('gradients_add', { paths: addends, path: pathOf('total') });
    const total = own.map((x, i) => large[i]! + x - large[i]!);
    expect(worst(read(pathOf('total')), total)).toBe(0);
    expect(worst(await gradientsOf(worker), sums)).toBe(0);
    await worker.call('gradients_in', { paths: [parts[0]!, pathOf('total'), parts[2]!] });
    const exchanged = sums.map((x, i) => (i >= chunk && i < 2 * chunk ? total[i - chunk]! : x));
    expect(worst(await gradientsOf(worker), exchanged)).toBe(0);

    const short = given('short', sums.subarray(1));
    for (const wrong of [[short], [parts[0]!, parts[1]!], [pathOf('none')], []])
      expect((await worker.ask('gradients_in', { paths: wrong })).error, wrong.join()).toBeDefined();
    for (const wrong of [[short, pathOf('all')], [pathOf('none')], []])
      expect(
        (await worker.ask('gradients_add', { paths: wrong, path: pathOf('x') })).error,
        wrong.join(),
      ).toBeDefined();
    await worker.call('zero_gradients');
  });

  it('is exported as a model folder that scores the same', async () => {
    await update();
    const { parameters } = await stateOf(worker);
    const path = join(scratch, 'exported');
    await worker.call('export', { path });
    expect(readdirSync(path)).toEqual(expect.arrayContaining(['config.json', 'tokenizer.json']));
    const { batch, tensors } = batchOf(fixture());
    const score = { batch, temperature: 1, ban: [] };
    const ours = await worker.call('forward', score, tensors);
    const other = start();
    await other.call('init', { ...init, path });
    const again = await stateOf(other);
    expect(again.step).toBe(0);
    for (const [name, { weight }] of parameters)
      expect(worst(again.parameters.get(name)!.weight, weight), name).toBe(0);
    expect(worst((await other.call('forward', score, tensors)).tensors.logp!, ours.tensors.logp!)).toBe(0);
    other.end();
    expect(await other.exit).toBe(0);
  });

  it('leaves no bulk data when its input ends', async () => {
    const folder = join(scratch, 'frame-thinker-4194305-0badcafe');
    const unrelated = join(scratch, 'mine');
    for (const one of [folder, unrelated]) mkdirSync(one);
    const other = start({ FT_SCRATCH: `${folder}:${unrelated}:${join(scratch, 'none')}` });
    await other.call('health');
    writeFileSync(join(folder, 'sums'), 'x');
    other.end();
    expect(await other.exit).toBe(0);
    expect(readdirSync(scratch)).not.toContain('frame-thinker-4194305-0badcafe');
    expect(readdirSync(scratch)).toContain('mine');
  });
});
