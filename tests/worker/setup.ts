/** @file What the conformance tests share: the worker that they start, the batch of the fixtures, states, distances. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'vitest';
import { blob, readBlob, type Tensors, WorkerClient } from './wire-client.ts';

const root = join(import.meta.dirname, '../..');
export const fixtures = resolve(process.env.GOLDEN_DIR ?? join(root, 'tests/fixtures'), 'qwen');
const entry = join(root, 'packages/policy-worker/src/main.ts');
const command =
  process.env.FT_WORKER_COMMAND ?? `'${process.execPath}' --import '${import.meta.resolve('tsx')}' '${entry}'`;
export const scratch = mkdtempSync(join(tmpdir(), 'worker-conformance-'));
const clients: WorkerClient[] = [];
export const start = (env: Record<string, string> = {}): WorkerClient => {
  const client = new WorkerClient(command, env);
  clients.push(client);
  return client;
};

const look = { frames: 2, max_width: 56, max_height: 56 };
export const limits = { max_prompt_length: 200, max_response_length: 20, single_response_max_tokens: 8, max_turns: 2 };
export const init = {
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

export interface Fixture {
  trajectories: { input_ids: number[]; images: [number, number, number][]; prompt_length: number; mask: number[] }[];
  cases: Record<string, Case>;
}
export interface Case {
  options: { temperature: number };
  trajectories: { log_probs: number[]; entropy: number[]; d_logp: number[]; d_entropy: number[] }[];
  grad_norm: number;
  grad_norms: Record<string, number>;
}
export const fixture = (): Fixture => JSON.parse(readFileSync(join(fixtures, 'grpo_update.json'), 'utf8'));

/** The fixtures' picture of a formula (tests/fixtures/qwen/README.md). */
export function picture([width, height, k]: readonly [number, number, number]): number[] {
  const at = (i: number): number[] => {
    const [x, y] = [i % width, Math.floor(i / width)];
    const checks = ((Math.floor(x / 8) + Math.floor(y / 8)) % 2) * 200;
    return [7 * x + 3 * y + 37 * k, Math.floor((x * x) / 16) + 5 * y + 11 * k, checks + ((x * y + k) % 56)];
  };
  return Array.from({ length: width * height }, (_, i) => at(i).map((value) => value % 256)).flat();
}

/** All trajectories of the fixture as one batch. */
export function batchOf({ trajectories }: Fixture): { batch: object; tensors: Tensors } {
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
export const aligned = (rows: readonly number[][]): Float32Array =>
  Float32Array.from(rows.flatMap((row) => [0, ...row]));
export const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((sum, v) => sum + v * v, 0));
/** Relative L2 distance. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return norm(Array.from(a, (x, i) => x - b[i]!)) / norm(b);
}
/** Largest |a − b| where the mask is 1; Infinity for anything that is not a number. */
export const worst = (a: ArrayLike<number>, b: ArrayLike<number>, mask?: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  const off = Array.from(a, (x, i) => (mask && !mask[i] ? 0 : Math.abs(x - b[i]!)));
  return off.some(Number.isNaN) ? Number.POSITIVE_INFINITY : off.reduce((a, b) => Math.max(a, b), 0);
};

export interface Parameter {
  shape: number[];
  weight: Float32Array;
  m: Float32Array;
  v: Float32Array;
}
/** Read from the one shard of rank 0 of 1 that the worker saves. */
export async function stateOf(worker: WorkerClient): Promise<{ step: number; parameters: Map<string, Parameter> }> {
  const path = mkdtempSync(join(scratch, 'saved-'));
  const { result } = await worker.call('save', { path, rank: 0, world_size: 1 });
  const [model, optim] = ['model', 'optim'].map((kind) => readBlob(readFileSync(join(path, shardName(kind, 1, 0)))));
  rmSync(path, { recursive: true });
  const names = Object.keys(JSON.parse(model!.metadata.shards!));
  const parameters = names.map((name): [string, Parameter] => {
    const [m, v] = ['.exp_avg', '.exp_avg_sq'].map((kind) => optim!.tensors[name + kind] as Float32Array);
    return [name, { shape: model!.shapes[name]!, weight: model!.tensors[name] as Float32Array, m: m!, v: v! }];
  });
  return { step: result.step as number, parameters: new Map(parameters) };
}
export const shardName = (kind: string, worldSize: number, rank: number): string =>
  `${kind}_world_size_${worldSize}_rank_${rank}.safetensors`;
export const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  Buffer.from(buffer, byteOffset, byteLength);
export function expectSame(a: Awaited<ReturnType<typeof stateOf>>, b: typeof a): void {
  expect(a.step).toBe(b.step);
  expect([...a.parameters.keys()]).toEqual([...b.parameters.keys()]);
  for (const [name, { shape, ...ours }] of a.parameters) {
    const other = b.parameters.get(name)!;
    expect(shape).toEqual(other.shape);
    for (const kind of ['weight', 'm', 'v'] as const)
      expect(bytesOf(ours[kind]).equals(bytesOf(other[kind])), `${name} ${kind}`).toBe(true);
  }
}
/** Gives a state as the one shard of rank 0 of 1. */
export async function restore(
  worker: WorkerClient,
  { step, parameters }: Awaited<ReturnType<typeof stateOf>>,
): Promise<void> {
  const path = mkdtempSync(join(scratch, 'given-'));
  const all = [...parameters];
  const files = {
    model: all.map(([name, { shape, weight }]) => ({ name, shape, data: weight })),
    optim: all.flatMap(([name, { shape, m, v }]) => [
      { name: `${name}.exp_avg`, shape, data: m },
      { name: `${name}.exp_avg_sq`, shape, data: v },
    ]),
  };
  for (const [kind, tensors] of Object.entries(files)) {
    const metadata = {
      ...{ world_size: '1', rank: '0' },
      shards: JSON.stringify(
        Object.fromEntries(tensors.map(({ name, shape }) => [name, { dim: 0, shape, offset: 0 }])),
      ),
    };
    const data = Object.fromEntries(tensors.map((one) => [one.name, one.data]));
    const shapes = Object.fromEntries(tensors.map(({ name, shape }) => [name, shape]));
    writeFileSync(join(path, shardName(kind, 1, 0)), blob(metadata, data, shapes));
  }
  writeFileSync(join(path, 'fsdp_config.json'), JSON.stringify({ FSDP_version: 2, world_size: 1 }));
  await worker.call('load', { path, step });
  rmSync(path, { recursive: true });
}
export const gradientsOf = async (worker: WorkerClient): Promise<Float64Array> =>
  (await worker.call('gradients_out')).tensors.gradients as Float64Array;

/** Fixtures of another layout have no such file. */
export const hasFixtures = existsSync(join(fixtures, 'grpo_update.json'));

/** Whole gradients and weights of torch, by `<case>.grad.<name>` and so on. */
export const wholeTensors = (): Tensors => readBlob(readFileSync(join(fixtures, 'grpo_update.safetensors'))).tensors;

/** Ends all workers and removes what they wrote. */
export function cleanUp(): void {
  for (const client of clients) client.kill();
  rmSync(scratch, { recursive: true, force: true });
}
