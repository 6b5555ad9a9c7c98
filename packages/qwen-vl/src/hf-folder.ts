/** @file The text and image side of a model folder in one: tokenizer, template, image processor, stop tokens. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { type ChatTemplate, IM_END, loadChatTemplate, VISION_TOKENS } from './chat-template.ts';
import { type ImageProcessorConfig, loadImageProcessorConfig } from './image-processor.ts';
import { loadTokenizer, type TextTokenizer } from './tokenizer.ts';

export interface Processor {
  readonly dir: string;
  readonly tokenizer: TextTokenizer;
  readonly chat: ChatTemplate;
  readonly images: ImageProcessorConfig;
  /** Stop tokens: every eos id of generation_config.json, else of config.json. */
  readonly eosIds: readonly number[];
  readonly imEndId: number;
  readonly imagePadId: number;
  /** image_pad, video_pad, vision_start, vision_end: never sampled. */
  readonly banIds: readonly number[];
}

/** Every eos id of generation_config.json; without that file config.json's. @throws InputError when none is named. */
export function loadEosIds(dir: string): number[] {
  const generation = join(dir, 'generation_config.json');
  const path = existsSync(generation) ? generation : join(dir, 'config.json');
  const json = readJsonFile(path) as { eos_token_id?: unknown; text_config?: { eos_token_id?: unknown } } | null;
  const ids = [json?.eos_token_id ?? json?.text_config?.eos_token_id].flat();
  if (ids.length === 0 || !ids.every((id): id is number => Number.isInteger(id)))
    throw new InputError(
      `${path}: eos_token_id is ${JSON.stringify(json?.eos_token_id)}; it must name the stop tokens`,
    );
  return [...new Set(ids)];
}

/** @throws InputError naming the missing or damaged file. */
export function loadProcessor(dir: string): Processor {
  const tokenizer = loadTokenizer(dir);
  return {
    dir,
    tokenizer,
    chat: loadChatTemplate(dir, tokenizer),
    images: loadImageProcessorConfig(dir),
    eosIds: loadEosIds(dir),
    imEndId: tokenizer.idOf(IM_END),
    imagePadId: tokenizer.idOf(VISION_TOKENS.imagePad),
    banIds: Object.values(VISION_TOKENS).map((token) => tokenizer.idOf(token)),
  };
}
