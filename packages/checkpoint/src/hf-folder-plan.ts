/** @file Which weight files a Hugging Face model folder gets, and what each holds in which dtype. */
import type { Dtype, FloatDtype } from './dtype.ts';
import { SINGLE } from './hf-folder.ts';
import { byteLengthOf } from './safetensors.ts';
import type { RangedSource, TensorSource } from './tensor-source.ts';

export type WriteDtype = 'keep' | 'fp32' | 'bf16' | 'fp16';

const STORED: Record<Exclude<WriteDtype, 'keep'>, FloatDtype> = { fp32: 'F32', bf16: 'BF16', fp16: 'F16' };
/** Of the dtypes that weights are computed in, by the names of config.json. */
export const CONFIG_NAMES: Partial<Record<Dtype, string>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };

export interface PlanOptions {
  tensors: Iterable<TensorSource | RangedSource>;
  /** For floating-point tensors; keep: each its own. */
  dtype: WriteDtype;
  /** Bytes of data in a file; more makes shards and an index. Default 5 GB. */
  maxShardSize?: number;
}

export interface PlannedFile {
  name: string;
  tensors: PlannedTensor[];
}

export interface PlannedTensor {
  source: TensorSource | RangedSource;
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  bytes: number;
}

/** The files that would be written, and what each holds. */
export function planHfFiles(options: PlanOptions): PlannedFile[] {
  const { dtype: target, maxShardSize = 5e9 } = options;
  const groups: PlannedTensor[][] = [[]];
  let size = 0;
  for (const source of options.tensors) {
    const { dtype: own = 'F32', shape } = 'tensor' in source ? source.tensor : source;
    const dtype = target !== 'keep' && (CONFIG_NAMES[own] || own === 'F64') ? STORED[target] : own;
    const bytes = byteLengthOf(dtype, shape);
    if (size > 0 && size + bytes > maxShardSize) {
      groups.push([]);
      size = 0;
    }
    size += bytes;
    groups.at(-1)!.push({ source, name: source.name, dtype, shape, bytes });
  }
  if (groups.length === 1) return [{ name: SINGLE, tensors: groups[0]! }];
  const digits = (n: number) => String(n).padStart(5, '0');
  return groups.map((tensors, i) => ({
    name: `model-${digits(i + 1)}-of-${digits(groups.length)}.safetensors`,
    tensors,
  }));
}
