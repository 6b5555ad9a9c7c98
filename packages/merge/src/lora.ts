/** @file LoRA weights of a PEFT model: told apart from the base's, folded into them, or written as an adapter. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ADAPTER_FOLDER,
  asFloat32,
  bytesOf,
  createSafetensors,
  elementCount,
  type FloatDtype,
  fromFloat32,
  type RangedTensor,
  readJsonFile,
  sizeOfDtype,
  streamTensor,
  viewAs,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';

const PEFT = 'base_model.model.';

export interface LoraPair {
  /** [r, in]. */
  a: RangedTensor;
  /** [out, r]. */
  b: RangedTensor;
}

export interface SplitLora {
  /** The base model's tensors under their own names. */
  base: Map<string, RangedTensor>;
  /** By the name of the module, without PEFT's prefix. Empty: no LoRA. */
  pairs: Map<string, LoraPair>;
}

/** Takes PEFT's names apart. @throws InputError naming the tensor: one half of a pair, shapes that do not fit. */
export function splitLora(tensors: ReadonlyMap<string, RangedTensor>, source: string): SplitLora {
  const base = new Map<string, RangedTensor>();
  const halves = new Map<string, Partial<LoraPair>>();
  const strip = (name: string) => (name.startsWith(PEFT) ? name.slice(PEFT.length) : name);
  for (const [name, tensor] of tensors) {
    const [, module, half] = /^(.*)\.lora_([AB])(?:\.default)?\.weight$/.exec(name) ?? [];
    if (module === undefined) {
      if (/\.lora_|\.adapter_/.test(name))
        throw new InputError(`${source}: tensor ${name}: a kind of adapter that is not read`);
      base.set(strip(name).replace('.base_layer.', '.'), tensor);
      continue;
    }
    const pair = halves.get(strip(module)) ?? {};
    pair[half === 'A' ? 'a' : 'b'] = tensor;
    halves.set(strip(module), pair);
  }
  const pairs = new Map<string, LoraPair>();
  for (const [module, { a, b }] of halves) {
    if (!a || !b) throw new InputError(`${source}: ${module}: lora_${a ? 'B' : 'A'} is missing`);
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[0] !== b.shape[1])
      throw new InputError(`${source}: ${module}: lora_A [${a.shape}] and lora_B [${b.shape}] do not fit`);
    pairs.set(module, { a, b });
  }
  return { base, pairs };
}

export interface LoraMeta {
  alpha: number;
  taskType: string | null;
}

/** alpha by the flag, else by lora_train_meta.json. @throws InputError where neither says it. */
export function loraMetaOf(localDir: string, flag: number | undefined, rank: number): LoraMeta {
  const path = join(localDir, 'lora_train_meta.json');
  const meta = existsSync(path) ? (readJsonFile(path) as Record<string, unknown> | null) : null;
  const alpha = flag ?? meta?.lora_alpha;
  if (alpha === undefined) throw new InputError(`${path}: missing, and it names LoRA's alpha; give --lora-alpha`);
  if (typeof alpha !== 'number' || !Number.isFinite(alpha) || alpha <= 0)
    throw new InputError(
      `${flag === undefined ? path : '--lora-alpha'}: alpha ${JSON.stringify(alpha)} is not a positive number`,
    );
  if (meta?.r !== undefined && meta.r !== rank)
    throw new InputError(`${path}: r is ${JSON.stringify(meta.r)}, the shards' LoRA has rank ${rank}`);
  return { alpha, taskType: typeof meta?.task_type === 'string' ? meta.task_type : null };
}

/** The rank that all pairs have. */
export function loraRank(pairs: ReadonlyMap<string, LoraPair>, source: string): number {
  const ranks = new Set([...pairs.values()].map(({ a }) => a.shape[0] as number));
  const [rank = 0] = ranks;
  if (ranks.size !== 1 || rank === 0)
    throw new InputError(`${source}: LoRA of ranks ${[...ranks].join(', ')}; one is read`);
  return rank;
}

const floats = (tensor: RangedTensor, begin: number, count: number): Float32Array => {
  const bytes = new Uint8Array(count * sizeOfDtype(tensor.dtype));
  tensor.read(begin, bytes);
  const data = viewAs(tensor.dtype, bytes);
  return asFloat32({ dtype: tensor.dtype, shape: [count], data }) as Float32Array;
};

/**
 * W + scale · B·A, summed in double precision and rounded to W's dtype. A [r, in] is kept while W is read.
 * @throws InputError when the shapes do not fit.
 */
export function foldLora(base: RangedTensor, pair: LoraPair, scale: number, source: string): RangedTensor {
  const [rows, columns] = base.shape as [number, number];
  const { a, b } = pair;
  if (base.shape.length !== 2 || b.shape[0] !== rows || a.shape[1] !== columns)
    throw new InputError(`${source}: [${base.shape}], but its LoRA is of [${b.shape[0]},${a.shape[1]}]`);
  if (!['F32', 'BF16', 'F16'].includes(base.dtype)) throw new InputError(`${source}: ${base.dtype} cannot take LoRA`);
  const r = a.shape[0] as number;
  const size = sizeOfDtype(base.dtype);
  let left: Float32Array | null = null;
  return {
    dtype: base.dtype,
    shape: base.shape,
    fingerprint: null,
    read: (begin, target) => {
      base.read(begin, target);
      const count = target.byteLength / size;
      if (count === 0) return;
      left ??= floats(a, 0, elementCount(a.shape));
      const values = asFloat32({
        dtype: base.dtype,
        shape: [count],
        data: viewAs(base.dtype, target.slice()),
      }) as Float32Array;
      const firstRow = Math.floor(begin / columns);
      const lastRow = Math.floor((begin + count - 1) / columns);
      const right = floats(b, firstRow * r, (lastRow - firstRow + 1) * r);
      const sums = new Float64Array(columns);
      for (let row = firstRow; row <= lastRow; row++) {
        sums.fill(0);
        for (let k = 0; k < r; k++) {
          const factor = right[(row - firstRow) * r + k] as number;
          for (let j = 0; j < columns; j++) sums[j]! += factor * (left[k * columns + j] as number);
        }
        const from = Math.max(begin, row * columns);
        const to = Math.min(begin + count, (row + 1) * columns);
        for (let at = from; at < to; at++) values[at - begin]! += scale * (sums[at - row * columns] as number);
      }
      target.set(bytesOf(fromFloat32(base.dtype as FloatDtype, values)));
      if (begin + count === rows * columns) left = null;
    },
  };
}

/** Writes lora_adapter/ as PEFT reads it. Returns its files. */
export function writeAdapter(options: {
  dir: string;
  pairs: ReadonlyMap<string, LoraPair>;
  meta: LoraMeta;
  rank: number;
  base: string;
  dtypeOf: (tensor: RangedTensor) => RangedTensor['dtype'];
}): string[] {
  const { dir, pairs, meta, rank, dtypeOf } = options;
  mkdirSync(join(dir, ADAPTER_FOLDER), { recursive: true });
  const named = [...pairs].flatMap(([module, { a, b }]) => [
    [`${PEFT}${module}.lora_A.weight`, a] as const,
    [`${PEFT}${module}.lora_B.weight`, b] as const,
  ]);
  const file = `${ADAPTER_FOLDER}/adapter_model.safetensors`;
  const writer = createSafetensors({
    path: join(dir, file),
    tensors: named.map(([name, tensor]) => ({ name, shape: tensor.shape, dtype: dtypeOf(tensor) })),
    metadata: { format: 'pt' },
    sync: false,
  });
  try {
    for (const [name, tensor] of named) streamTensor(tensor, dtypeOf(tensor), (chunk) => writer.write(name, chunk));
    writer.finish();
  } catch (error) {
    writer.abort();
    throw error;
  }
  const config = {
    peft_type: 'LORA',
    task_type: meta.taskType,
    base_model_name_or_path: options.base,
    r: rank,
    lora_alpha: meta.alpha,
    lora_dropout: 0,
    bias: 'none',
    inference_mode: true,
    target_modules: [...new Set([...pairs.keys()].map((module) => module.split('.').at(-1)))].sort(),
  };
  const configFile = `${ADAPTER_FOLDER}/adapter_config.json`;
  writeFileSync(join(dir, configFile), `${JSON.stringify(config, null, 2)}\n`);
  return [file, configFile];
}
