/** @file The text and image side of a model folder in one: tokenizer, template, image processor, stop tokens. */
import { InvariantError } from '@frame-thinker/core';
import type { ChatTemplate } from './chat-template.ts';
import type { ImageProcessorConfig } from './image-processor.ts';
import type { TextTokenizer } from './tokenizer.ts';

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

/** @throws InputError naming the missing or damaged file. */
export function loadProcessor(_dir: string): Processor {
  throw new InvariantError('loadProcessor: not written yet');
}
