import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSpotlightEnvironment } from '@frame-thinker/agent-env';
import { type CcvTrajectory, ccv } from '@frame-thinker/ccv-reward';
import { createRng, type Sample } from '@frame-thinker/core';
import { loadTokenizer, type TextTokenizer } from '@frame-thinker/qwen-vl';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DemonstrationOptions } from './demonstration.ts';
import { type DemonstrationKind, demonstrate } from './demonstrations.ts';
import { createCurriculum } from './sft-curriculum.ts';
import {
  type MomentQuestion,
  makeQuestion,
  QUESTION_KINDS,
  type QuestionKind,
  questionRow,
} from './synth-questions.ts';
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
    weights: { letter: 4, verdict: 4, seen: 4, option: 2, number: 2, chance: 0.5 },
  };
});
afterAll(() => rmSync(dir, { recursive: true }));

const kinds: DemonstrationKind[] = ['see', 'list', 'copy', 'whole3', 'whole', 'guess', 'wander'];
const made = (kind: DemonstrationKind, i: number, asked: readonly QuestionKind[] = QUESTION_KINDS) => {
  const rng = createRng(11, 'synth', i, 0, 2);
  const question = makeQuestion(synthVideo({ seed: 1, split: 'sft', index: i % 3 }), rng, asked);
  return { question, sequence: demonstrate(kind, question, rng, options) };
};
const REGIME = { frames: 8, maxWidth: 112, maxHeight: 56 };
const REGIMES = { limitSeconds: 300, short: REGIME, long: REGIME };
/** What the environment shows first. */
const spreadFrames = (total: number) => Array.from({ length: 8 }, (_, i) => Math.trunc(((total - 1) * i) / 7));
const MOMENTS = ['colour', 'shape'] as const;

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

  it('are learnt in turns of the assistant alone', () => {
    for (const kind of kinds)
      for (let i = 0; i < 20; i++) {
        const { ids, weights } = made(kind, i).sequence;
        const unlearnt = tokenizer.decode(ids.filter((_, at) => weights[at] === 0));
        const learnt = tokenizer.decode(ids.filter((_, at) => weights[at]! > 0));
        expect(learnt).not.toMatch(/im_start|Frame number at|vision|\?/);
        expect(unlearnt).not.toContain('<action>');
      }
  });

  it.each(QUESTION_KINDS)(
    'whole: a question of %s is worth the full reward, and the frames are those that its looks show',
    async (kind) => {
      const looks = new Set<number>();
      for (let i = 0; i < 30; i++) {
        const { question, sequence } = made('whole', i, [kind]);
        const { extra_info: extraInfo, reward_model: model } = questionRow(question, { split: 'sft', index: i }) as {
          extra_info: Record<string, unknown>;
          reward_model: { ground_truth: string };
        };
        const sample = { uid: 'q', prompt: [], videoPath: 'v.mp4', dataSource: 'synth', extraInfo };
        const asked: Sample = { ...sample, groundTruth: model.ground_truth };
        const shown = spreadFrames(question.video.scene.frames);
        const environment = createSpotlightEnvironment({
          regimes: REGIMES,
          frames: {
            probe: () => Promise.reject(new Error('not needed')),
            get: async (video, indices, size) => indices.map((index) => ({ video, index, ...size, sha256: '' })),
          },
        });
        const rng = createRng(0, 'sample');
        await environment.reset(asked, rng);
        const turns: CcvTrajectory['turns'][number][] = [];
        const text = tokenizer.decode(sequence.ids);
        const said = [...text.matchAll(/<\|im_start\|>assistant\n(.*?)<\|im_end\|>/gs)].map(([, turn]) => turn!);
        for (const turn of said) {
          const { frames, done, reason: _, message, ...observed } = await environment.step(turn, rng);
          turns.push({ role: 'assistant', text: turn, ...observed });
          shown.push(...frames.map(({ index }) => index));
          expect(done).toBe(turn === said.at(-1));
          // The reply of the demonstration is the environment's.
          if (frames.length === 0 && !done) expect(text).toContain(`user\n${message}<|im_end|>`);
        }
        const reward = ccv({ turns, end: 'answer' }, asked, { frames: options.frames });
        expect(reward).toMatchObject({ total: kind === 'place' ? 1.02 : 1.52, rules: [] });
        expect(sequence.frames.map(({ index }) => index)).toEqual(shown);
        expect(said.length).toBeLessThanOrEqual(5);
        looks.add(said.length);
      }
      expect([...looks].sort()).toEqual(kind === 'place' ? [2, 3, 4] : [3]);
    },
  );

  it('copy: the look is at the frame that the reply names, which the time does not tell', () => {
    let unrelated = 0;
    for (let i = 0; i < 50; i++) {
      const { question, sequence } = made('copy', i, MOMENTS);
      const text = tokenizer.decode(sequence.ids);
      const frame = Number(/ is: (\d+)\./.exec(text)![1]);
      const start = 100 * Math.floor(frame / 100);
      expect(text.split(` ${start} and ${start + 99}<`)).toHaveLength(3);
      if (frame !== 24 * (question as MomentQuestion).seconds) unrelated++;
    }
    expect(unrelated).toBeGreaterThan(40);
  });
});

describe('the curriculum', () => {
  it('is a pure function of seed and step, with a schedule that warms up and falls', () => {
    const weights = { letter: 1, verdict: 1, seen: 1, option: 1, number: 1, chance: 1 };
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
        kinds: ['colour', 'place'],
        phases,
      });
    const curriculum = create();
    expect(curriculum.totalSteps).toBe(8);
    expect(curriculum.sequences(4, options)).toEqual(create().sequences(4, options));
    expect(curriculum.sequences(4, options).map(({ kind, questionKind }) => [kind, questionKind])).toEqual([
      ['list', 'colour'],
      ['copy', 'colour'],
      ['copy', 'place'],
    ]);
    const rates = Array.from({ length: 8 }, (_, step) => curriculum.learningRate(step));
    expect(rates).toEqual([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25]);
  });
});
