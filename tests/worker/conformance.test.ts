/**
 * @file Conformance to docs/worker-protocol.md, through the pipes alone, of the worker that FT_WORKER_COMMAND starts (a shell line); without it, of
 * this repository's. Expected values are those of transformers and torch (tests/fixtures/qwen) and of float64 arithmetic done here.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blob, framed, lengthOf, type Tensors, WorkerClient } from './wire-client.ts';

const root = join(import.meta.dirname, '../..');
const fixtures = resolve(process.env.GOLDEN_DIR ?? join(root, 'tests/fixtures'), 'qwen');
const entry = join(root, 'packages/policy-worker/src/main.ts');
const command =
  process.env.FT_WORKER_COMMAND ?? `'${process.execPath}' --import '${import.meta.resolve('tsx')}' '${entry}'`;
const scratch = mkdtempSync(join(tmpdir(), 'worker-conformance-'));
const clients: WorkerClient[] = [];
const start = (): WorkerClient => {
  const client = new WorkerClient(command);
  clients.push(client);
  return client;
};

const look = { frames: 2, max_width: 56, max_height: 56 };
const limits = { max_prompt_length: 200, max_response_length: 20, single_response_max_tokens: 8, max_turns: 2 };
const init = {
  path: join(fixtures, 'model'),
  dtype: 'float32',
  seed: 3,
  engine: { name: 'onnx', provider: 'cpu', threads: 1 },
  rollout: { slots: 2, max_images: 4, ...limits },
  environment: {
    ...{ grammar: 'strict', template: 'chat', system_prompt: 'none', compat: 'none', registry: {}, base_dir: scratch },
    regimes: { limit_seconds: 300, short: look, long: look },
  },
};

interface Fixture {
  trajectories: { input_ids: number[]; images: [number, number, number][]; prompt_length: number; mask: number[] }[];
  cases: Record<string, Case>;
}
interface Case {
  options: { temperature: number };
  trajectories: { log_probs: number[]; entropy: number[]; d_logp: number[]; d_entropy: number[] }[];
  grad_norm: number;
  grad_norms: Record<string, number>;
}
const fixture = (): Fixture => JSON.parse(readFileSync(join(fixtures, 'grpo_update.json'), 'utf8'));

/** The fixtures' picture of a formula (tests/fixtures/qwen/README.md). */
function picture([width, height, k]: readonly [number, number, number]): number[] {
  const at = (i: number): number[] => {
    const [x, y] = [i % width, Math.floor(i / width)];
    const checks = ((Math.floor(x / 8) + Math.floor(y / 8)) % 2) * 200;
    return [7 * x + 3 * y + 37 * k, Math.floor((x * x) / 16) + 5 * y + 11 * k, checks + ((x * y + k) % 56)];
  };
  return Array.from({ length: width * height }, (_, i) => at(i).map((value) => value % 256)).flat();
}

/** All trajectories of the fixture as one batch. */
function batchOf({ trajectories }: Fixture): { batch: object; tensors: Tensors } {
  const { image_token_id: pad, vision_start_token_id: opens } = JSON.parse(
    readFileSync(join(fixtures, 'model/config.json'), 'utf8'),
  );
  const rows = trajectories.map(({ input_ids: ids, images, prompt_length }) => {
    const starts = ids.flatMap((id, i) => (id === pad && ids[i - 1] === opens ? [i] : []));
    expect(starts).toHaveLength(images.length);
    const sized = images.map(([width, height], i) => ({ width, height, position: starts[i]! }));
    return { length: ids.length, prompt_length, frames: [], images: sized };
  });
  return {
    batch: { id: 'b', trajectories: rows },
    tensors: {
      ids: Int32Array.from(trajectories.flatMap((row) => row.input_ids)),
      mask: Uint8Array.from(trajectories.flatMap((row) => row.mask)),
      images: Uint8Array.from(trajectories.flatMap(({ images }) => images.flatMap(picture))),
    },
  };
}

/** Values of ids[1:] of each row, as one tensor aligned with ids. */
const aligned = (rows: readonly number[][]): Float32Array => Float32Array.from(rows.flatMap((row) => [0, ...row]));
const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((sum, v) => sum + v * v, 0));
/** Largest |a − b| where the mask is 1; Infinity for anything that is not a number. */
const worst = (a: ArrayLike<number>, b: ArrayLike<number>, mask?: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  const off = Array.from(a, (x, i) => (mask && !mask[i] ? 0 : Math.abs(x - b[i]!)));
  return off.some(Number.isNaN) ? Number.POSITIVE_INFINITY : off.reduce((a, b) => Math.max(a, b), 0);
};

interface Parameter {
  shape: number[];
  weight: Float32Array;
  m: Float32Array;
  v: Float32Array;
}
async function stateOf(worker: WorkerClient): Promise<{ step: number; parameters: Map<string, Parameter> }> {
  const { result, partial } = await worker.call('weights_out');
  const parameters = new Map<string, Parameter>();
  for (const { partial: part, tensors, shapes } of partial)
    for (const name of part!.names as string[]) {
      const [weight, m, v] = ['', '.exp_avg', '.exp_avg_sq'].map((kind) => tensors[name + kind] as Float32Array);
      parameters.set(name, { shape: shapes[name]!, weight: weight!, m: m!, v: v! });
    }
  return { step: result.step as number, parameters };
}
const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) => Buffer.from(buffer, byteOffset, byteLength);
function expectSame(a: Awaited<ReturnType<typeof stateOf>>, b: typeof a): void {
  expect(a.step).toBe(b.step);
  expect([...a.parameters.keys()]).toEqual([...b.parameters.keys()]);
  for (const [name, { shape, ...ours }] of a.parameters) {
    const other = b.parameters.get(name)!;
    expect(shape).toEqual(other.shape);
    for (const kind of ['weight', 'm', 'v'] as const)
      expect(bytesOf(ours[kind]).equals(bytesOf(other[kind])), `${name} ${kind}`).toBe(true);
  }
}
async function restore(worker: WorkerClient, { step, parameters }: Awaited<ReturnType<typeof stateOf>>): Promise<void> {
  for (const [name, { shape, weight, m, v }] of parameters) {
    const tensors = { [name]: weight, [`${name}.exp_avg`]: m, [`${name}.exp_avg_sq`]: v };
    const shapes = Object.fromEntries(Object.keys(tensors).map((key) => [key, shape]));
    await worker.call('weights_part', { names: [name] }, tensors, shapes);
  }
  await worker.call('weights_in', { step });
}
const gradientsOf = async (worker: WorkerClient): Promise<Float64Array> =>
  (await worker.call('gradients_out')).tensors.gradients as Float64Array;

describe.runIf(existsSync(join(fixtures, 'grpo_update.json')))('a worker, by the protocol alone', () => {
  let worker: WorkerClient;
  let capabilities: Record<string, unknown>;
  beforeAll(async () => {
    worker = start();
    capabilities = (await worker.call('init', init)).result;
  });
  afterAll(() => {
    for (const client of clients) client.kill();
    rmSync(scratch, { recursive: true, force: true });
  });

  it('says what it is', async () => {
    const { parameters } = await stateOf(worker);
    const size = [...parameters.values()].reduce((sum, { weight }) => sum + weight.length, 0);
    const { vocab_size } = JSON.parse(readFileSync(join(fixtures, 'model/config.json'), 'utf8')).text_config ?? {};
    expect(capabilities.parameters).toBe(size);
    if (vocab_size !== undefined) expect(capabilities.vocab_size).toBe(vocab_size);
    expect(capabilities.methods).toEqual(expect.arrayContaining(['gradients_out', 'weights_out', 'weights_in']));
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
    await backward();
    const twice = await gradientsOf(worker);
    expect(norm(twice.map((x, i) => x - 2 * once[i]!)) / norm(twice)).toBeLessThan(1e-6);
    if ((capabilities.methods as string[]).includes('gradients_add')) {
      const { gradients } = (await worker.call('gradients_add', {}, { gradients: once })).tensors;
      expect(
        worst(
          gradients!,
          twice.map((x, i) => x + once[i]!),
        ),
      ).toBe(0);
      expect(worst(await gradientsOf(worker), twice)).toBe(0);
    }
    await worker.call('zero_gradients');
    expect(norm(await gradientsOf(worker))).toBe(0);
  });

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
    expect((await worker.call('apply_update', options)).result).toEqual({ grad_norm: null, applied: false });
    expectSame(await stateOf(worker), after);

    await restore(worker, saved);
    expectSame(await stateOf(worker), saved);
    expect((await worker.ask('weights_in', { step: 0 })).error?.message).toMatch(/lack|missing/);
  });

  it('rolls out the same twice, alone or beside others, within the limits', async (context) => {
    if (!(capabilities.methods as string[]).includes('rollout')) context.skip('needs a worker with the method rollout');
    const group = (uid: string, position: number) => ({
      ...{ position, n: 2, step: 1 },
      sample: {
        ...{ uid, data_source: 'd', ground_truth: 'A', extra_info: { someKey: 1 } },
        prompt: [{ role: 'user', content: 'what is it?' }],
      },
    });
    const sampling = { temperature: 1, top_p: 1, top_k: -1, do_sample: true };
    const roll = async (groups: object[]) => {
      const { partial, result } = await worker.call('rollout', { groups, sampling });
      expect(result.groups).toBe(groups.length);
      const byGroup = partial.toSorted((a, b) => Number(a.partial!.group) - Number(b.partial!.group));
      return byGroup.map(({ partial: part, tensors }) => ({
        rows: part!.trajectories as {
          uid: string;
          sample: number;
          length: number;
          prompt_length: number;
          end: string;
        }[],
        tensors,
      }));
    };
    const both = await roll([group('a', 0), group('b', 1)]);
    const again = await roll([group('a', 0), group('b', 1)]);
    expect(again.map(({ tensors }) => tensors)).toEqual(both.map(({ tensors }) => tensors));
    const [alone] = await roll([group('b', 1)]);
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

  it('answers wrong calls with an error and serves on', async () => {
    const tensors = { ids: Int32Array.of(1, 2, 3), mask: Uint8Array.of(0, 1, 1) };
    const row = { length: 3, prompt_length: 1, frames: [], images: [] };
    const params = { batch: { id: 'x', trajectories: [row] }, temperature: 1, ban: [] };
    expect((await worker.ask('no_such_method')).error).toBeDefined();
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
