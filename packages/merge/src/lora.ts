/** @file LoRA weights of a PEFT model: told apart from the base's, folded into them, or written as an adapter. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ADAPTER_FOLDER,
  asFloat32,
  bytesOf,
  createSafetensors,
  type FloatDtype,
  fromFloat32,
  holdPieceBytes,
  type RangedTensor,
  readJsonFile,
  releasePieceBytes,
  sizeOfDtype,
  streamTensor,
  viewAs,
  withPiece,
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
  /** PEFT's modules_to_save, trained as a whole: their tensors by the name of the base's that they stand for. */
  saved: Map<string, RangedTensor>;
}

/** Takes PEFT's names apart. @throws InputError naming the tensor: one half of a pair, shapes that do not fit, a name twice. */
export function splitLora(tensors: ReadonlyMap<string, RangedTensor>, source: string): SplitLora {
  const base = new Map<string, RangedTensor>();
  const saved = new Map<string, RangedTensor>();
  const halves = new Map<string, Partial<LoraPair>>();
  const strip = (name: string) => (name.startsWith(PEFT) ? name.slice(PEFT.length) : name);
  const put = (into: Map<string, RangedTensor>, name: string, was: string, tensor: RangedTensor): void => {
    if (into.has(name)) throw new InputError(`${source}: tensor ${was}: ${name} is there already under another name`);
    into.set(name, tensor);
  };
  for (const [name, tensor] of tensors) {
    const [, module, half] = /^(.*)\.lora_([AB])(?:\.default)?\.weight$/.exec(name) ?? [];
    const [, owner, kind, adapter, rest = ''] =
      /^(.*)\.(?:(original_module)|modules_to_save\.([^.]+))\.([^.]+)$/.exec(name) ?? [];
    if (module !== undefined) {
      const pair = halves.get(strip(module)) ?? {};
      pair[half === 'A' ? 'a' : 'b'] = tensor;
      halves.set(strip(module), pair);
    } else if (owner !== undefined && kind !== undefined) put(base, `${strip(owner)}.${rest}`, name, tensor);
    else if (owner !== undefined && adapter === 'default') put(saved, `${strip(owner)}.${rest}`, name, tensor);
    else if (/\.lora_|\.adapter_|\.modules_to_save\.|\.original_module\./.test(name))
      throw new InputError(`${source}: tensor ${name}: a kind of adapter that is not read`);
    else put(base, strip(name).replace('.base_layer.', '.'), name, tensor);
  }
  const pairs = new Map<string, LoraPair>();
  for (const [module, { a, b }] of halves) {
    if (!a || !b) throw new InputError(`${source}: ${module}: lora_${a ? 'B' : 'A'} is missing`);
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[0] !== b.shape[1])
      throw new InputError(`${source}: ${module}: lora_A [${a.shape}] and lora_B [${b.shape}] do not fit`);
    pairs.set(module, { a, b });
  }
  return { base, pairs, saved };
}

export interface LoraMeta {
  alpha: number;
  /** Rank-stabilised: scaled by alpha / sqrt(r), not alpha / r. */
  stabilised: boolean;
  taskType: string | null;
}

/** What B·A is multiplied by. */
export const loraScale = ({ alpha, stabilised }: LoraMeta, rank: number): number =>
  alpha / (stabilised ? Math.sqrt(rank) : rank);

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
  for (const key of ['use_dora', 'rank_pattern', 'alpha_pattern']) {
    const value = meta?.[key];
    const isEmpty = !value || (typeof value === 'object' && Object.keys(value).length === 0);
    if (!isEmpty) throw new InputError(`${path}: ${key} ${JSON.stringify(value)} is not read`);
  }
  const stabilised = meta?.use_rslora ?? false;
  if (typeof stabilised !== 'boolean')
    throw new InputError(`${path}: use_rslora ${JSON.stringify(stabilised)} is neither true nor false`);
  return { alpha, stabilised, taskType: typeof meta?.task_type === 'string' ? meta.task_type : null };
}

/** The rank that all pairs have. */
export function loraRank(pairs: ReadonlyMap<string, LoraPair>, source: string): number {
  const ranks = new Set([...pairs.values()].map(({ a }) => a.shape[0] as number));
  const [rank = 0] = ranks;
  if (ranks.size !== 1 || rank === 0)
    throw new InputError(`${source}: LoRA of ranks ${[...ranks].join(', ')}; one is read`);
  return rank;
}

/** Values that are converted or summed at once. */
const SLICE = 1 << 15;
/** Bytes of A, as float32, that are kept while W is read; a larger A is read again for every few rows of W, in parts. */
const KEPT_WHOLE = 4e6;
const KEPT_PART = 3 << 20;
/** A row of A is kept whole. */
const MAX_COLUMNS = 1e6;
/** Values of B that are kept: whole rows. */
const FACTORS = 1 << 16;

/** Elements [begin, begin + out.length) as float32. */
function readFloats(tensor: RangedTensor, begin: number, out: Float32Array): void {
  const size = sizeOfDtype(tensor.dtype);
  withPiece(SLICE * size, (piece) => {
    for (let at = 0; at < out.length; at += SLICE) {
      const bytes = piece.subarray(0, Math.min(SLICE, out.length - at) * size);
      tensor.read(begin + at, bytes);
      const data = viewAs(tensor.dtype, bytes);
      out.set(asFloat32({ dtype: tensor.dtype, shape: [data.length], data }) as Float32Array, at);
    }
  });
}

/** Rows of one A, the last that were read: tensors are written one after the other. */
let kept: { of: RangedTensor; first: number; values: Float32Array } | null = null;

function dropKept(): void {
  if (kept) releasePieceBytes(kept.values.byteLength);
  kept = null;
}

function rowsOfA(a: RangedTensor, first: number, count: number): Float32Array {
  if (kept?.of === a && kept.first === first) return kept.values;
  dropKept();
  const columns = a.shape[1] as number;
  const values = new Float32Array(count * columns);
  holdPieceBytes(values.byteLength);
  kept = { of: a, first, values };
  readFloats(a, first * columns, values);
  return values;
}

/**
 * W + scale · B·A, summed in double precision and rounded to W's dtype.
 * @throws InputError when the shapes do not fit.
 */
export function foldLora(base: RangedTensor, pair: LoraPair, scale: number, source: string): RangedTensor {
  const [rows, columns] = base.shape as [number, number];
  const { a, b } = pair;
  if (base.shape.length !== 2 || b.shape[0] !== rows || a.shape[1] !== columns)
    throw new InputError(`${source}: [${base.shape}], but its LoRA is of [${b.shape[0]},${a.shape[1]}]`);
  for (const { dtype } of [base, a, b])
    if (!['F32', 'BF16', 'F16'].includes(dtype)) throw new InputError(`${source}: ${dtype} cannot take LoRA`);
  if (columns > MAX_COLUMNS) throw new InputError(`${source}: ${columns} columns, LoRA is folded into ${MAX_COLUMNS}`);
  const r = a.shape[0] as number;
  if (r > FACTORS) throw new InputError(`${source}: LoRA of rank ${r}; up to ${FACTORS} is folded`);
  const mostLines = Math.floor(FACTORS / r);
  const size = sizeOfDtype(base.dtype);
  const whole = r * columns * 4 <= KEPT_WHOLE;
  const perBlock = whole ? r : Math.max(1, Math.floor(KEPT_PART / 4 / columns));

  /** Adds to whole rows or to a part of one: elements [begin, begin + bytes) of W, which are `bytes`. */
  const addTo = (
    begin: number,
    bytes: Uint8Array,
    { sums, factors }: { sums: Float64Array; factors: Float32Array },
  ) => {
    const count = bytes.byteLength / size;
    const row = Math.floor(begin / columns);
    const column = begin - row * columns;
    const width = Math.min(columns, count);
    const lines = count / width;
    readFloats(b, row * r, factors.subarray(0, lines * r));
    sums.fill(0);
    for (let first = 0; first < r; first += perBlock) {
      const height = Math.min(perBlock, r - first);
      const values = rowsOfA(a, first, height);
      for (let line = 0; line < lines; line++)
        for (let k = 0; k < height; k++) {
          const factor = factors[line * r + first + k] as number;
          const [into, at] = [line * width, k * columns + column];
          for (let j = 0; j < width; j++) sums[into + j]! += factor * (values[at + j] as number);
        }
    }
    const data = viewAs(base.dtype, bytes.slice());
    const values = (asFloat32({ dtype: base.dtype, shape: [count], data }) as Float32Array).map(
      (value, i) => value + scale * (sums[i] as number),
    );
    bytes.set(bytesOf(fromFloat32(base.dtype as FloatDtype, values)));
  };
  return {
    dtype: base.dtype,
    shape: base.shape,
    fingerprint: null,
    read: (begin, target) => {
      base.read(begin, target);
      const end = begin + target.byteLength / size;
      withPiece(SLICE * 8 + FACTORS * 4, (piece) => {
        const sums = new Float64Array(piece.buffer, 0, SLICE);
        const factors = new Float32Array(piece.buffer, SLICE * 8, FACTORS);
        for (let at = begin; at < end; ) {
          const column = at % columns;
          const left = columns - column;
          // Rows from their beginning as many as fit, else what fits of one.
          const whole =
            column === 0 && columns <= SLICE
              ? Math.min(mostLines, Math.floor(Math.min(SLICE, end - at) / columns)) * columns
              : 0;
          const next = at + (whole || Math.min(left, SLICE, end - at));
          addTo(at, target.subarray((at - begin) * size, (next - begin) * size), { sums, factors });
          at = next;
        }
      });
      if (end === rows * columns) dropKept();
    },
  };
}

/** Writes lora_adapter/ as PEFT reads it. Returns its files. */
export function writeAdapter(options: {
  dir: string;
  pairs: ReadonlyMap<string, LoraPair>;
  saved: ReadonlyMap<string, RangedTensor>;
  meta: LoraMeta;
  rank: number;
  base: string;
  dtypeOf: (tensor: RangedTensor) => RangedTensor['dtype'];
}): string[] {
  const { dir, pairs, saved, meta, rank, dtypeOf } = options;
  mkdirSync(join(dir, ADAPTER_FOLDER), { recursive: true });
  const named = [
    ...[...pairs].flatMap(([module, { a, b }]) => [
      [`${PEFT}${module}.lora_A.weight`, a] as const,
      [`${PEFT}${module}.lora_B.weight`, b] as const,
    ]),
    ...[...saved].map(([name, tensor]) => [`${PEFT}${name}`, tensor] as const),
  ];
  const lastNames = (modules: Iterable<string>) =>
    [...new Set([...modules].map((module) => module.split('.').at(-1)))].sort();
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
    use_rslora: meta.stabilised,
    lora_dropout: 0,
    bias: 'none',
    inference_mode: true,
    target_modules: lastNames(pairs.keys()),
    modules_to_save:
      saved.size > 0 ? lastNames([...saved.keys()].map((name) => name.slice(0, name.lastIndexOf('.')))) : null,
  };
  const configFile = `${ADAPTER_FOLDER}/adapter_config.json`;
  writeFileSync(join(dir, configFile), `${JSON.stringify(config, null, 2)}\n`);
  return [file, configFile];
}
