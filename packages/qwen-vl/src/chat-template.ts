/** @file The model's chat template: conversations and observations as token ids, images as runs of pads. */
import { InvariantError, type Message } from '@frame-thinker/core';
import type { TextTokenizer } from './tokenizer.ts';

export interface EncodedText {
  ids: number[];
  /** Index in ids of each image's first image_pad. */
  imagePositions: number[];
}

export interface ChatTemplate {
  /** The text of a conversation: each `<image>` in a content becomes one vision_start, image_pad, vision_end. */
  render(messages: readonly Message[], options: { addGenerationPrompt: boolean }): string;
  /** Ids of a conversation, with tokensPerImage[i] pads for the i-th `<image>`. */
  encode(
    messages: readonly Message[],
    options: { tokensPerImage: readonly number[]; addGenerationPrompt: boolean },
  ): EncodedText;
  /**
   * Ids that follow a sampled `<|im_end|>`: the rest of the assistant turn, a user turn of `message`, and the opened
   * assistant turn. `reference` gives the original environment's bytes instead of the template's.
   */
  encodeObservation(
    message: string,
    options: { tokensPerImage: readonly number[]; template?: 'model' | 'reference' },
  ): EncodedText;
}

/** Reads chat_template.jinja, chat_template.json or tokenizer_config.json's chat_template. @throws InputError */
export function loadChatTemplate(_dir: string, _tokenizer: TextTokenizer): ChatTemplate {
  throw new InvariantError('loadChatTemplate: not written yet');
}
