import type { Environment, Group, Observation, RolloutLimits, SamplingOptions, Trajectory } from '@frame-thinker/core';
import { createRng, philox4x32, tokenUniform } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import {
  certain,
  fakeCodec,
  fakeFrame,
  fakeModel,
  idsOf,
  PAD,
  TEXT_END,
  TURN_END,
  textOf,
  VOCAB,
} from './fake-model.ts';
import type { PolicyModel } from './policy-model.ts';
import { PromptUnreadableError, type RolloutOptions, rollout } from './rollout.ts';

const limits: RolloutLimits = {
  slots: 4,
  maxPromptLength: 50,
  maxResponseLength: 200,
  singleResponseMaxTokens: 60,
  maxTurns: 3,
  maxImages: 8,
};
const sampling: SamplingOptions = { temperature: 1, topP: 1, topK: -1, doSample: true };
const group = (uid: string, position = 0, n = 1): Group => ({
  sample: { uid, prompt: [], dataSource: 'd', groundTruth: 'A', extraInfo: {} },
  position,
  n,
  step: 7,
});

/** An environment on one letter: `look` shows two frames, `time` tells a number, `answer` ends; others as named. */
const act = (text: string): Observation => {
  const over = (reason: Observation['reason'], error?: string): Observation => ({
    frames: [],
    done: true,
    ...(reason ? { reason } : {}),
    ...(error ? { error } : {}),
  });
  if (text === '') return over('empty');
  if (text.includes('answer')) return { ...over('answer'), action: { kind: 'answer', answer: 'A' } };
  if (text.includes('look'))
    return {
      message: 'f1 <image>\nf2 <image>',
      frames: [fakeFrame(1), fakeFrame(2)],
      frameIndices: [1, 2],
      done: false,
      action: { kind: 'frames', start: 0, end: 9 },
    };
  if (text.includes('time'))
    return {
      message: 'is: 5',
      frames: [],
      frameNumber: 5,
      done: false,
      action: { kind: 'time', time: '0:01', seconds: 1 },
    };
  if (text.includes('broken')) return over('decode_error', 'damaged');
  if (text.includes('throw')) throw new Error('the environment fell over');
  return over('no_action');
};
const environment = (): Environment => ({
  reset: async () => {},
  step: async (text) => act(text),
  close: async () => {},
});

/** A policy that writes these turns, each with its stop token. */
const scripted =
  (turns: readonly string[]) =>
  (ids: readonly number[]): Float32Array => {
    const written = textOf(ids);
    const starts = written.split('\na:');
    const turn = turns[starts.length - 2] ?? '';
    const at = starts.at(-1)!.length;
    return certain(turn.charCodeAt(at) || TURN_END);
  };
const stop = String.fromCharCode(TURN_END);

async function run(
  options: Partial<RolloutOptions> & Pick<RolloutOptions, 'model' | 'groups'>,
): Promise<Trajectory[][]> {
  const out: Trajectory[][] = [];
  const all: RolloutOptions = {
    codec: fakeCodec,
    prompt: async (sample) => ({ ids: idsOf(`q ${sample.uid}${stop}\na:`), frames: [] }),
    environment: async () => environment(),
    limits,
    sampling,
    seed: 3,
    ...options,
  };
  for await (const { index, trajectories } of rollout(all)) out[index] = trajectories;
  return out;
}
const one = async (turns: readonly string[], options: Partial<RolloutOptions> = {}): Promise<Trajectory> =>
  (await run({ model: fakeModel(2, scripted(turns)), groups: [group('q')], ...options }))[0]![0]!;

describe('an episode', () => {
  it('keeps exact tokens, mask, frames and provenance over several turns', async () => {
    const model = fakeModel(2, scripted([`look${stop}`, `time${stop}`, `answer${stop}`]));
    const t = await one([], { model });
    expect(t.end).toBe('answer');
    expect(t.toolCalls).toBe(2);
    expect(t.turns.map(({ role, text }) => [role, text])).toEqual([
      ['assistant', 'look'],
      ['user', 'f1 <image>\nf2 <image>'],
      ['assistant', 'time'],
      ['user', 'is: 5'],
      ['assistant', 'answer'],
    ]);
    let at = t.promptLength;
    for (const turn of t.turns) {
      expect(turn.start).toBe(at);
      at = turn.end;
      expect([...t.mask.subarray(turn.start, turn.end)].every((m) => m === (turn.role === 'assistant' ? 1 : 0))).toBe(
        true,
      );
    }
    expect(at).toBe(t.ids.length);
    expect(
      t.frames.map(({ index, position }) => [index, position, t.ids[position], t.ids[position - 1] === PAD]),
    ).toEqual([
      [1, t.frames[0]!.position, PAD, false],
      [2, t.frames[1]!.position, PAD, false],
    ]);
    expect(t.turns[0]).toMatchObject({
      action: { kind: 'frames' },
      frameIndices: [1, 2],
      observation: 'f1 <image>\nf2 <image>',
    });
    expect(t.turns[2]).toMatchObject({ action: { kind: 'time' }, frameNumber: 5, observation: 'is: 5' });
    expect(t.turns[4]).toMatchObject({ action: { kind: 'answer', answer: 'A' } });
    expect(t.logProbs.every((x, i) => (t.mask[i] ? Math.abs(x) < 1e-9 : x === 0))).toBe(true);
    expect(model.counts).toMatchObject({ prefills: 1, extends: 2, images: 2 });
  });

  it.each<[string, string[], Partial<RolloutLimits>, Partial<Trajectory>]>([
    ['answer', [`answer${stop}`], {}, { end: 'answer', toolCalls: 0 }],
    ['no_action', [`what${stop}`], {}, { end: 'no_action' }],
    ['empty', [stop], {}, { end: 'empty' }],
    ['decode_error', [`broken${stop}`], {}, { end: 'decode_error' }],
    ['env_error', [`throw${stop}`], {}, { end: 'env_error' }],
    ['max_turns', [`time${stop}`, `time${stop}`, `time${stop}`], {}, { end: 'max_turns', toolCalls: 2 }],
    [
      'max_turns, not decode_error, where nothing would be shown',
      [`broken${stop}`],
      { maxTurns: 1 },
      { end: 'max_turns' },
    ],
    ['answer in the last turn', [`time${stop}`, `time${stop}`, `answer${stop}`], {}, { end: 'answer', toolCalls: 2 }],
    ['too_many_images', [`look${stop}`, `look${stop}`], { maxImages: 3 }, { end: 'too_many_images', toolCalls: 1 }],
    [
      'turn_length, even of a whole action',
      ['answer and more'],
      { singleResponseMaxTokens: 10 },
      { end: 'turn_length' },
    ],
    ['length, by what is left', ['answer and more'], { maxResponseLength: 9 }, { end: 'length' }],
    [
      'bad_action after another stop token',
      [`time${String.fromCharCode(TEXT_END)}`],
      {},
      { end: 'bad_action', toolCalls: 0 },
    ],
    ['answer with another stop token', [`answer${String.fromCharCode(TEXT_END)}`], {}, { end: 'answer' }],
  ])('ends as %s', async (_, turns, changed, expected) => {
    expect(await one(turns, { limits: { ...limits, ...changed } })).toMatchObject(expected);
  });

  it('drops an observation that would reach the limit, and ends on the sampled token', async () => {
    const observed = fakeCodec.observation('is: 5', []).ids.length;
    const turn = 'time'.length + 1;
    const fits = await one([`time${stop}`, `answer${stop}`], {
      limits: { ...limits, maxResponseLength: turn + observed + 1 },
    });
    expect(fits).toMatchObject({ end: 'length', toolCalls: 1 });
    expect(fits.ids.length).toBe(fits.promptLength + turn + observed + 1);
    const dropped = await one([`time${stop}`, `answer${stop}`], {
      limits: { ...limits, maxResponseLength: turn + observed },
    });
    expect(dropped).toMatchObject({ end: 'length', toolCalls: 0 });
    expect(dropped.ids.length).toBe(dropped.promptLength + turn);
    expect(dropped.turns).toHaveLength(1);
    expect(dropped.turns[0]!.action).toBeUndefined();
  });

  it('of an unreadable prompt is data; a prompt that is too long or wrong is an error', async () => {
    const prompt = async (): Promise<never> => {
      throw new PromptUnreadableError('gone.mp4: not there');
    };
    const out = await run({ model: fakeModel(2, scripted([])), groups: [group('q', 0, 2)], prompt });
    expect(out[0]!.map(({ end, turns, ids }) => [end, turns[0]!.error, ids.length])).toEqual([
      ['decode_error', 'gone.mp4: not there', 0],
      ['decode_error', 'gone.mp4: not there', 0],
    ]);
    await expect(one([`answer${stop}`], { limits: { ...limits, maxPromptLength: 3 } })).rejects.toThrow(
      /row q: the prompt has 7 tokens/,
    );
    await expect(one([], { prompt: () => Promise.reject(new RangeError('bad row')) })).rejects.toThrow('bad row');
  });

  it('may begin inside an opened turn: its text has the opening, its mask only what was sampled', async () => {
    const open = '<t>';
    const prompt = async () => ({ ids: idsOf(`q${stop}\na:${open}`), frames: [], prefill: open.length });
    const t = await one([`${open}answer${stop}`], { prompt });
    expect(t.promptLength).toBe(`q${stop}\na:`.length);
    expect(t.turns[0]).toMatchObject({ start: t.promptLength, text: `${open}answer` });
    expect([...t.mask.subarray(t.promptLength)]).toEqual([0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
  });

  it.each<[unknown, RegExp]>([
    [undefined, /returned undefined, not an observation/],
    [{ frames: [] }, /`done` is no boolean/],
    [{ done: false }, /`frames` are no list/],
    [{ done: true, frames: [], reason: 'nonsense' }, /the reason "nonsense"; there are answer, /],
  ])('whose environment gives %j is env_error', async (given, message) => {
    const wrong = async (): Promise<Environment> => ({ ...environment(), step: async () => given as Observation });
    const { end, turns } = await one([`look${stop}`], { environment: wrong });
    expect(end).toBe('env_error');
    expect(turns[0]!.error).toMatch(message);
  });

  it('whose environment does not start is env_error', async () => {
    const failing = async (): Promise<Environment> => ({
      ...environment(),
      reset: () => Promise.reject(new Error('no')),
    });
    expect(await one([], { environment: failing })).toMatchObject({ end: 'env_error', turns: [{ error: 'no' }] });
  });
});

describe('a rollout', () => {
  it('draws each token by the number of its own step, row, turn and place', async () => {
    const letters = Array.from({ length: 64 }, (_, i) => 33 + i);
    const length = 4;
    const next = (ids: readonly number[]): Float32Array => {
      const written = ids.length - ids.lastIndexOf(58) - 1; // since the last ":"
      if (written === length) return certain(TURN_END);
      const logits = new Float32Array(VOCAB).fill(-100);
      for (const id of letters) logits[id] = 0;
      return logits;
    };
    letters.splice(letters.indexOf(58), 1);
    const goesOn = async (): Promise<Environment> => ({
      ...environment(),
      step: async () => ({ message: 'on', frames: [], done: false }),
    });
    const groups = [group('a', 0, 2), group('b', 1, 2)];
    const found = await run({ model: fakeModel(3, next), groups, environment: goesOn, seed: 9 });
    for (const [position, trajectories] of found.entries())
      for (const { ids, turns, sample, step } of trajectories) {
        const said = turns.filter(({ role }) => role === 'assistant');
        expect(said).toHaveLength(limits.maxTurns);
        for (const [turn, { start }] of said.entries())
          for (let token = 0; token < length; token++) {
            const uniform = tokenUniform(9, step, position * 2 + sample, turn, token);
            expect(ids[start + token]).toBe(letters[Math.floor(uniform * letters.length)]);
          }
      }
  });

  /** Random logits that depend on the whole sequence, with actions and stops likely enough to make all kinds of episodes. */
  const random = (ids: readonly number[]): Float32Array => {
    const [a, b] = ids.reduce<[number, number]>(
      ([x, y], id) => philox4x32([x, y, id, 0], [1, 2]).slice(0, 2) as [number, number],
      [ids.length, 5],
    );
    const logits = new Float32Array(VOCAB).fill(-20);
    const tail = textOf(ids).split('\na:').at(-1)!;
    const word = ['look', 'time', 'answer', 'what'].find((w) => tail !== '' && w.startsWith(tail));
    if (tail === '') for (const c of 'ltaw') logits[c.charCodeAt(0)] = (a ^ (c.charCodeAt(0) * 977)) % 3;
    else logits[word && word !== tail ? word.charCodeAt(tail.length) : TURN_END] = 4;
    logits['x'.charCodeAt(0)] = (b % 100) / 100;
    return logits;
  };
  const groups = Array.from({ length: 16 }, (_, i) => group(`q${i}`, i, (i % 3) + 1));
  const essence = (all: Trajectory[][]) =>
    all.map((trajectories) =>
      trajectories.map(({ ids, mask, logProbs, end, sample, frames, toolCalls }) => ({
        ids,
        mask,
        logProbs,
        end,
        sample,
        frames,
        toolCalls,
      })),
    );

  /** Everything that a rollout waits for, late by up to 2 ms as `seed` says: prompts, images, environments. */
  const late = (seed: number, model: PolicyModel): Pick<RolloutOptions, 'model' | 'prompt' | 'environment'> => {
    const rng = createRng(seed, 'permute');
    const after = async <T>(work: () => T | Promise<T>): Promise<T> => {
      const ms = rng.below(3);
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
      return work();
    };
    return {
      model: {
        ...model,
        prefill: (span) => after(() => model.prefill(span)),
        extend: (extensions) => after(() => model.extend(extensions)),
      },
      prompt: (sample) => after(() => ({ ids: idsOf(`q ${sample.uid}${stop}\na:`), frames: [] })),
      environment: (sample) =>
        after(() => ({
          reset: () => after(() => environment().reset(sample, rng)),
          step: (text) => after(() => act(text)),
          close: () => after(() => {}),
        })),
    };
  };
  const shuffle = <T>(seed: number, items: readonly T[]): T[] => createRng(seed, 'shuffle').shuffled(items);

  it('gives each row the same trajectory with random delays of all it waits for, in any order, group size and slots', async () => {
    const base = new Map<number, object>();
    const rowsOf = async (groups: readonly Group[], slots: number, seed: number): Promise<[number, object][]> => {
      const out = await run({ groups, ...late(seed, fakeModel(slots, random)) });
      return groups.flatMap(({ position, n }, g) =>
        essence(out)[g]!.map(({ sample, ...rest }): [number, object] => [position * n + sample, rest]),
      );
    };
    // Rows 6 i … 6 i + 5 of question i, as groups of n.
    const inGroups = (n: number) =>
      [0, 1, 2].flatMap((i) => Array.from({ length: 6 / n }, (_, k) => group(`q${i}`, (6 * i) / n + k, n)));
    for (const [row, found] of await rowsOf(inGroups(6), 4, 0)) base.set(row, found);
    expect(base.size).toBe(18);
    for (const [seed, n, slots] of [
      [1, 6, 1],
      [2, 1, 5],
      [3, 2, 3],
      [4, 3, 32],
      [6, 6, 7],
    ] as const) {
      const groups = shuffle(seed, inGroups(n));
      const some = seed % 2 === 0 ? groups : groups.slice(0, Math.ceil(groups.length / 2));
      for (const [row, found] of await rowsOf(some, slots, seed)) expect(found, `row ${row}`).toEqual(base.get(row));
    }
  });

  it('gives each row the same trajectory whatever the slots, the order and the batch mates, however slow the environment', async () => {
    const base = await run({ model: fakeModel(1, random), groups });
    expect(new Set(base.flat().map((t) => t.end)).size).toBeGreaterThan(2);
    expect(new Set(base.flat().map((t) => textOf(t.ids))).size).toBeGreaterThan(7);
    for (const slots of [2, 5, 32]) {
      const slow = (): Environment => ({
        ...environment(),
        step: async (text) => {
          await new Promise((resolve) => setTimeout(resolve, text.length % 3));
          return act(text);
        },
      });
      const model = fakeModel(slots, random);
      const out = await run({ model, groups, environment: async () => slow() });
      expect(essence(out)).toEqual(essence(base));
      expect(model.counts.prefills).toBe(groups.length);
    }
    const reversed = await run({ model: fakeModel(3, random), groups: [...groups].reverse() });
    expect(essence(reversed.reverse())).toEqual(essence(base));
    const alone = await run({ model: fakeModel(3, random), groups: [groups[4]!] });
    expect(essence(alone)[0]).toEqual(essence(base)[4]);
  });

  it('makes the same calls of the model each time, however long environments take', async () => {
    const calls = async (ms: number): Promise<string> => {
      const model = fakeModel(4, random);
      const log: string[] = [];
      const logged = {
        ...model,
        step: (tokens: Int32Array) => {
          log.push(`step ${tokens.join()}`);
          return model.step(tokens);
        },
        extend: (extensions: Parameters<typeof model.extend>[0]) => {
          log.push(`extend ${extensions.map((e) => e.slot).join()}`);
          return model.extend(extensions);
        },
      };
      const slow = async (): Promise<Environment> => ({
        ...environment(),
        step: async (text) => {
          await new Promise((resolve) => setTimeout(resolve, ms));
          return act(text);
        },
      });
      await run({ model: logged, groups, environment: slow });
      return log.join('\n');
    };
    expect(await calls(3)).toBe(await calls(0));
  });

  it('frees its slots and environments when it is left early', async () => {
    let open = 0;
    const counted = async (): Promise<Environment> => ({
      ...environment(),
      reset: async () => {
        open++;
      },
      close: async () => {
        open--;
      },
    });
    const model = fakeModel(3, random);
    const options = { model, groups, environment: counted, codec: fakeCodec, limits, sampling, seed: 3 };
    for await (const _ of rollout({ ...options, prompt: async () => ({ ids: idsOf('\na:'), frames: [] }) })) break;
    expect(open).toBe(0);
    for (let slot = 0; slot < 3; slot++) model.fork(await model.prefill({ ids: idsOf('x'), images: [] }), slot);
  });
});

describe('a turn that was opened for the policy', () => {
  it('is one text; what opened it is neither sampled nor trained on, and counts in the turn', async () => {
    const opening = 'ans';
    const start = `q x${stop}\na:`;
    const one = await run({
      model: fakeModel(1, scripted([`answer${stop}`])),
      groups: [group('x')],
      prompt: async () => ({ ids: idsOf(start + opening), frames: [], prefill: opening.length }),
    });
    const t = one[0]![0]!;
    expect(t.promptLength).toBe(start.length);
    expect(t.turns).toMatchObject([{ role: 'assistant', text: 'answer', start: start.length }]);
    expect(t.end).toBe('answer');
    expect([...t.mask.subarray(t.promptLength)]).toEqual([0, 0, 0, 1, 1, 1, 1]);
    expect(t.logProbs.subarray(0, start.length + opening.length).every((x) => x === 0)).toBe(true);

    const capped = await run({
      model: fakeModel(1, scripted(['answering at length'])),
      groups: [group('x')],
      prompt: async () => ({ ids: idsOf(start + opening), frames: [], prefill: opening.length }),
      limits: { ...limits, singleResponseMaxTokens: 8 },
    });
    expect(capped[0]![0]).toMatchObject({ end: 'turn_length', turns: [{ text: 'answerin' }] });
  });
});
