import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@frame-thinker/core';
import { loadTokenizer, type TextTokenizer } from '@frame-thinker/qwen-vl';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DemonstrationKind, type DemonstrationOptions, demonstrate, lookAround } from './demonstrations.ts';
import { createCurriculum } from './sft-curriculum.ts';
import { makeQuestion } from './synth-questions.ts';
import { synthVideo } from './synth-scene.ts';
import { BARE_WORDS, SPACED_WORDS } from './synth-words.ts';
import { tinyPolicyFiles } from './tiny-policy.ts';

const dir = mkdtempSync(join(tmpdir(), 'ft-demonstrations-'));
let tokenizer: TextTokenizer;
let options: DemonstrationOptions;
beforeAll(() => {
  for (const [name, text] of Object.entries(tinyPolicyFiles().files)) writeFileSync(join(dir, name), text);
  tokenizer = loadTokenizer(dir);
  options = {
    encode: (text) => tokenizer.encode(text),
    imageTokens: 8,
    frames: 8,
    weights: { letter: 4, verdict: 4, seen: 4, option: 2, number: 2 },
  };
});
afterAll(() => rmSync(dir, { recursive: true }));

const kinds: DemonstrationKind[] = ['see', 'list', 'copy', 'whole3', 'whole', 'mix'];
const made = (kind: DemonstrationKind, i: number) => {
  const rng = createRng(11, 'synth', i, 0, 2);
  const question = makeQuestion(synthVideo({ seed: 1, split: 'sft', index: i % 3 }), rng);
  return { question, sequence: demonstrate(kind, question, rng, options) };
};

describe('the tiny tokenizer', () => {
  it('makes one token of each word of the task', () => {
    for (const word of [...BARE_WORDS, ...SPACED_WORDS.map((w) => ` ${w}`), ...'0123456789:\n. '])
      expect(tokenizer.encode(word)).toHaveLength(1);
  });
  it('encodes and decodes any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const normal = text.normalize('NFC');
        expect(tokenizer.decode(tokenizer.encode(normal))).toBe(normal);
      }),
    );
  });
});

describe('demonstrations', () => {
  it.each(kinds)('%s: encodes piece by piece as its whole text does', (kind) => {
    for (let i = 0; i < 30; i++) {
      const { ids } = made(kind, i).sequence;
      expect([...ids]).toEqual(tokenizer.encode(tokenizer.decode(ids)));
    }
  });

  it.each(kinds)('%s: image pads stand where the frames say, and are not learnt', (kind) => {
    const pad = tokenizer.idOf('<|image_pad|>');
    for (let i = 0; i < 30; i++) {
      const { ids, weights, frames } = made(kind, i).sequence;
      const positions = frames.flatMap(({ position }) =>
        Array.from({ length: options.imageTokens }, (_, k) => position + k),
      );
      expect([...ids].flatMap((id, at) => (id === pad ? [at] : []))).toEqual(positions);
      for (const at of positions) expect(weights[at]).toBe(0);
    }
  });

  it('whole: looks where the event is, says what it shows, and answers right', () => {
    for (let i = 0; i < 50; i++) {
      const { question, sequence } = made('whole', i);
      const [a, b] = lookAround(question.seconds * 24);
      const look = sequence.frames.slice(8);
      expect(look.every(({ index }) => a < index && index < b)).toBe(true);
      expect(look.some(({ index }) => question.event.start <= index && index <= question.event.end)).toBe(true);
      const text = tokenizer.decode(sequence.ids);
      expect(text).toContain(`i see a ${question.event.colour} ${question.event.shape}.`);
      expect(text.endsWith(`output answer: ${question.answer}</action><|im_end|>`)).toBe(true);
    }
  });

  it('mix: guesses, wanders and does it right about as often as asked', () => {
    const texts = Array.from({ length: 300 }, (_, i) => tokenizer.decode(made('mix', i).sequence.ids));
    const share = (test: (text: string) => boolean) => texts.filter(test).length / texts.length;
    const time = share((t) => t.includes('get frame number'));
    const look = share((t) => t.includes('choose frames'));
    expect(time).toBeGreaterThan(0.25);
    expect(time).toBeLessThan(0.45);
    expect(look - time).toBeGreaterThan(0.15);
    expect(look - time).toBeLessThan(0.35);
  });
});

describe('the curriculum', () => {
  it('is a pure function of seed and step, with a schedule that warms up and falls', () => {
    const weights = { letter: 1, verdict: 1, seen: 1, option: 1, number: 1 };
    const phases = [
      {
        lr: 1,
        warmupSteps: 2,
        decayShare: 0.5,
        weights,
        stages: [
          { steps: 3, mix: { see: 2 } },
          { steps: 5, mix: { list: 1, copy: 2 } },
        ],
      },
    ];
    const create = () =>
      createCurriculum({
        seed: 3,
        split: 'sft',
        videos: 2,
        frames: 8,
        habits: { whole: 1, guess: 0, wander: 0 },
        phases,
      });
    const curriculum = create();
    expect(curriculum.totalSteps).toBe(8);
    expect(curriculum.sequences(4, options)).toEqual(create().sequences(4, options));
    expect(curriculum.sequences(4, options).map(({ kind }) => kind)).toEqual(['list', 'copy', 'copy']);
    const rates = Array.from({ length: 8 }, (_, step) => curriculum.learningRate(step));
    expect(rates).toEqual([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25]);
  });
});
