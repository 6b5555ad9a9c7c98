/** @file For tests: a model over characters that knows each slot's whole sequence, and a codec whose ids are char codes. */
import type { FrameRef } from '@frame-thinker/core';
import type { TextCodec } from './episode.ts';
import type { PolicyModel, Span } from './policy-model.ts';

export const VOCAB = 128;
/** Ids that stand for special tokens. */
export const TURN_END = 1;
export const TEXT_END = 2;
export const PAD = 3;
const PADS_OF_IMAGE = 2;

export const idsOf = (text: string): Int32Array => Int32Array.from(text, (c) => c.charCodeAt(0));
export const textOf = (ids: ArrayLike<number>): string => String.fromCharCode(...Array.from(ids));

export const fakeCodec: TextCodec = {
  eosIds: [TURN_END, TEXT_END],
  turnEndId: TURN_END,
  ban: [PAD],
  decode: textOf,
  observation: (message, frames) => {
    const parts = message.split('<image>');
    const ids: number[] = [...idsOf('\nu:')];
    const positions: number[] = [];
    parts.forEach((part, i) => {
      ids.push(...idsOf(part));
      if (i === parts.length - 1) return;
      positions.push(ids.length);
      for (let k = 0; k < PADS_OF_IMAGE; k++) ids.push(PAD);
    });
    if (positions.length !== frames.length) throw new RangeError(`${positions.length} marks, ${frames.length} frames`);
    return { ids: Int32Array.from([...ids, TURN_END, ...idsOf('\na:')]), positions };
  },
};

/** Logits that make `id` certain. */
export function certain(id: number): Float32Array {
  const logits = new Float32Array(VOCAB).fill(-100);
  logits[id] = 100;
  return logits;
}

export interface FakeModel extends PolicyModel {
  readonly counts: { prefills: number; extends: number; steps: number; images: number };
}

/** @param next logits after a sequence */
export function fakeModel(slots: number, next: (ids: readonly number[]) => Float32Array): FakeModel {
  const sequences: (number[] | undefined)[] = Array.from({ length: slots });
  const counts = { prefills: 0, extends: 0, steps: 0, images: 0 };
  const prefixes = new WeakMap<object, number[]>();
  const checkImages = ({ ids, images }: Span): void => {
    const pads = ids.filter((id) => id === PAD).length;
    if (pads !== images.length * PADS_OF_IMAGE) throw new RangeError(`${pads} pads for ${images.length} images`);
    counts.images += images.length;
  };
  const grow = (slot: number, ids: Iterable<number>): Float32Array => {
    const sequence = sequences[slot];
    if (!sequence) throw new RangeError(`slot ${slot} holds no sequence`);
    sequence.push(...ids);
    return next(sequence);
  };
  return {
    slots,
    vocabSize: VOCAB,
    counts,
    prefill: async (span) => {
      checkImages(span);
      counts.prefills++;
      const prefix = { length: span.ids.length, logits: next([...span.ids]) };
      prefixes.set(prefix, [...span.ids]);
      return prefix;
    },
    fork: (prefix, slot) => {
      if (sequences[slot]) throw new RangeError(`slot ${slot} is in use`);
      sequences[slot] = [...prefixes.get(prefix)!];
    },
    extend: async (extensions) => {
      counts.extends++;
      return extensions.map(({ slot, span }) => {
        checkImages(span);
        return grow(slot, span.ids);
      });
    },
    step: async (tokens) => {
      counts.steps++;
      const logits = new Float32Array(slots * VOCAB);
      tokens.forEach((id, slot) => {
        if (id >= 0) logits.set(grow(slot, [id]), slot * VOCAB);
      });
      return logits;
    },
    release: (slot) => {
      sequences[slot] = undefined;
    },
  };
}

export const fakeFrame = (index: number): FrameRef => ({
  video: 'v',
  index,
  width: 28,
  height: 28,
  sha256: `${index}`,
});
