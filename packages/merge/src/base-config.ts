/** @file What a merge needs to know from the base model's config.json. */
import { join } from 'node:path';
import { readJsonFile, type WriteDtype } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';

export interface BaseConfig {
  readonly path: string;
  readonly modelType: string | null;
  readonly architecture: string | null;
  /** As config.json spells it. */
  readonly dtype: string | null;
  readonly tied: boolean;
  readonly vocabSize: number | null;
  readonly layers: number | null;
  readonly hidden: number | null;
  readonly intermediate: number | null;
  readonly heads: number | null;
  readonly kvHeads: number | null;
  readonly visionHeads: number | null;
}

/** Fields of the language model lie at the top or in text_config. @throws InputError naming the file. */
export function readBaseConfig(hfModelPath: string): BaseConfig {
  const path = join(hfModelPath, 'config.json');
  const json = readJsonFile(path);
  const record = (value: unknown): Record<string, unknown> =>
    typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const config = record(json);
  const text = record(config.text_config);
  const find = (key: string): unknown => config[key] ?? text[key] ?? null;
  const count = (value: unknown): number | null =>
    Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : null;
  const name = (value: unknown): string | null => (value === null || value === undefined ? null : String(value));
  const named = config.dtype ?? config.torch_dtype ?? text.dtype ?? text.torch_dtype;
  return {
    path,
    modelType: name(config.model_type),
    architecture: name((config.architectures as unknown[] | undefined)?.[0]),
    dtype: name(named),
    tied: find('tie_word_embeddings') === true,
    vocabSize: count(find('vocab_size')),
    layers: count(find('num_hidden_layers')),
    hidden: count(find('hidden_size')),
    intermediate: count(find('intermediate_size')),
    heads: count(find('num_attention_heads')),
    kvHeads: count(find('num_key_value_heads')),
    visionHeads: count(record(config.vision_config).num_heads),
  };
}

const DTYPE_NAMES: Record<string, WriteDtype> = { float32: 'fp32', bfloat16: 'bf16', float16: 'fp16' };

/** The dtype that config.json names (`dtype`, older `torch_dtype`), bf16 where it names none. @throws InputError */
export function dtypeOfBase({ dtype, path }: BaseConfig): WriteDtype {
  if (dtype === null) return 'bf16';
  const known = DTYPE_NAMES[dtype];
  if (!known)
    throw new InputError(`${path}: dtype ${JSON.stringify(dtype)} is not known; give --dtype bf16, fp16, fp32 or keep`);
  return known;
}
