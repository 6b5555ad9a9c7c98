/** @file Byte-level BPE tokenizer of a model folder, by @huggingface/tokenizers. */
import { join } from 'node:path';
import { readJsonFile } from '@frame-thinker/checkpoint';
import { InputError, messageOf } from '@frame-thinker/core';
import { Tokenizer } from '@huggingface/tokenizers';

export interface TextTokenizer {
  /** Ids of a text; special tokens written in it become their ids, none are added. */
  encode(text: string): number[];
  countTokens(text: string): number;
  /** @throws InputError for an id that the vocabulary lacks. */
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): string;
  /** Id of one token. @throws InputError when the vocabulary lacks it. */
  idOf(token: string): number;
  /** Ids of the added tokens that are marked as special. */
  readonly specialIds: ReadonlySet<number>;
}

/** Reads tokenizer.json and tokenizer_config.json. @throws InputError naming the file. */
export function loadTokenizer(dir: string): TextTokenizer {
  const path = join(dir, 'tokenizer.json');
  const json = readJsonFile(path);
  const config = readJsonFile(join(dir, 'tokenizer_config.json'));
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(json as object, config as object);
  } catch (error) {
    throw new InputError(`${path}: not a tokenizer (${messageOf(error)})`);
  }
  const encode = (text: string) => (text === '' ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids);
  const specialIds = new Set<number>();
  for (const [id, token] of tokenizer.get_added_tokens_decoder()) if (token.special) specialIds.add(id);
  return {
    encode,
    countTokens: (text) => encode(text).length,
    decode: (ids, { skipSpecialTokens = false } = {}) => {
      const list = Array.from(ids);
      const unknown = list.find((id) => tokenizer.id_to_token(id) === undefined);
      if (unknown !== undefined) throw new InputError(`${path}: has no token of id ${unknown}`);
      // The library refuses an empty list.
      if (list.length === 0) return '';
      return tokenizer.decode(list, { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false });
    },
    idOf: (token) => {
      const id = tokenizer.token_to_id(token);
      if (id === undefined) throw new InputError(`${path}: has no token ${token}`);
      return id;
    },
    specialIds,
  };
}
