/** @file Byte-level BPE tokenizer of a model folder, by @huggingface/tokenizers. */
import { InvariantError } from '@frame-thinker/core';

export interface TextTokenizer {
  /** Ids of a text; special tokens written in it become their ids, none are added. */
  encode(text: string): number[];
  countTokens(text: string): number;
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): string;
  /** Id of one token. @throws InputError when the vocabulary lacks it. */
  idOf(token: string): number;
  readonly specialIds: ReadonlySet<number>;
}

/** Reads tokenizer.json and tokenizer_config.json. @throws InputError naming the file. */
export function loadTokenizer(_dir: string): TextTokenizer {
  throw new InvariantError('loadTokenizer: not written yet');
}
