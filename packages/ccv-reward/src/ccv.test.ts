import type { Action } from '@frame-thinker/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CcvSample, type CcvTrajectory, ccv } from './ccv.ts';

const TOTAL = 14_400;
const FPS = 24;
const FRAMES = 12;
const sample: CcvSample = {
  groundTruth: 'C',
  totalFrames: TOTAL,
  extraInfo: { question: 'What is shown at 03:20?\nA. a\nB. b\nC. c\nD. d' },
};
type Turn = CcvTrajectory['turns'][number];

const text = (think: string, block: string) => `<think>${think}</think>\n<action>${block}</action>`;
const look = (start: number, end: number, think = `from ${start} to ${end}`): Turn => ({
  role: 'assistant',
  text: text(think, `choose frames between ${start} and ${end}`),
  action: { kind: 'frames', start, end },
  frameIndices: [start + 1, end - 1],
});
const ask = (time: string, frameNumber?: number): Turn => {
  const [minutes, seconds] = time.split(':').map(Number) as [number, number];
  const action: Action = { kind: 'time', time, seconds: 60 * minutes + seconds };
  return {
    role: 'assistant',
    text: text('which frame?', `get frame number at time ${time}`),
    action,
    frameNumber: frameNumber ?? FPS * action.seconds,
  };
};
const answer = (option: string): Turn => ({
  role: 'assistant',
  text: text('sure', `output answer: ${option}`),
  action: { kind: 'answer', answer: option },
});
const score = (turns: Turn[], row: Partial<CcvSample> = {}, options = {}) =>
  ccv({ turns, end: 'answer' }, { ...sample, ...row }, { frames: FRAMES, ...options });
const broken = (turns: Turn[], row: Partial<CcvSample> = {}) =>
  score(turns, row).rules.map(({ name, turn }) => [name, turn]);

describe('ccv', () => {
  it('gives the bonuses of a right answer', () => {
    expect(score([answer('C')])).toMatchObject({ total: 1, acc: 1, format: 1, other: 0, rules: [] });
    expect(score([look(100, 300), answer('c.')])).toMatchObject({ total: 1.02, other: 0.02 });
    expect(score([ask('3:20'), look(4700, 4900), answer('C')])).toMatchObject({ total: 1.52, other: 0.52 });
    const options = { timeBonus: 0.25, choiceBonus: 0 };
    expect(score([ask('3:20'), look(4700, 4900), answer('C')], {}, options).total).toBe(1.25);
  });
  it('gives the time bonus only for a time of the question, after frame 0', () => {
    const turns = [ask('0:01'), look(0, 900), answer('C')];
    expect(score(turns).total).toBe(1.02);
    expect(score(turns, { extraInfo: { question: 'The first second, 00:01?' } }).total).toBe(1.52);
    expect(score(turns, { extraInfo: {}, prompt: [{ role: 'user', content: 'At 0:01?' }] }).total).toBe(1.52);
    expect(score([ask('0:00'), look(0, 90), answer('C')], { extraInfo: { question: 'At 0:00?' } }).total).toBe(1.02);
    expect(
      score([ask('62:30'), look(0, 99_000), answer('C')], {
        extraInfo: { question: 'At 1:02:30?' },
        totalFrames: 99_999,
      }).total,
    ).toBe(1.52);
    for (const question of ['In 16:9?', 'At 2:1?', 'At 3:200?'])
      expect(score([ask('3:20'), look(4700, 4900), answer('C')], { extraInfo: { question } }).total).toBe(1.02);
  });
  it('gives nothing for a wrong answer, but says that the process was valid', () => {
    expect(score([ask('3:20'), look(4700, 4900), answer('D')])).toMatchObject({
      total: 0,
      acc: 0,
      format: 1,
      other: 0,
    });
    expect(broken([answer('C or D')])).toEqual([['wrong_answer', 0]]);
  });
  it.each<[string, Turn[], [string, number][]]>([
    ['repeated', [look(100, 300), look(100, 300), answer('C')], [['repeated_range', 1]]],
    ['repeated once cut at the end', [look(100, 20_000), look(100, 30_000), answer('C')], [['repeated_range', 1]]],
    ['shrunk', [look(100, 300), look(101, 299), answer('C')], [['shrunk_range', 1]]],
    ['whole video', [look(0, TOTAL - 1), answer('C')], [['initial_range', 0]]],
    ['too short', [look(100, 112), answer('C')], [['range_too_short', 0]]],
    ['other think', [look(100, 300, 'from 100 to 301'), answer('C')], [['think_range_mismatch', 0]]],
    ['endless number', [look(100, 300, `100 ${'3'.repeat(5000)}`), answer('C')], [['think_range_mismatch', 0]]],
    ['time again', [ask('3:20'), ask('03:20'), look(4700, 4900), answer('C')], [['repeated_time', 1]]],
    ['time not in range', [ask('3:20'), look(100, 300), answer('C')], [['time_not_in_range', 1]]],
    ['time just before', [ask('3:20'), look(4801, 4900), answer('C')], [['time_not_in_range', 1]]],
    ['time just behind', [ask('3:20'), look(4700, 4799), answer('C')], [['time_not_in_range', 1]]],
    ['time unused', [look(100, 300), ask('3:20'), answer('C')], [['time_unused', 2]]],
    ['negative frame', [ask('3:20', -5), look(100, 300), answer('C')], [['time_without_reply', 0]]],
    ['no answer', [look(100, 300)], [['no_answer', 0]]],
    ['nothing', [], [['no_answer', 0]]],
    ['went on', [answer('C'), answer('C')], [['answer_not_last', 0]]],
    [
      'several',
      [look(0, 9, 'x'), look(0, 9), answer('C')],
      [
        ['range_too_short', 0],
        ['think_range_mismatch', 0],
        ['repeated_range', 1],
        ['range_too_short', 1],
      ],
    ],
  ])('names the broken rule with its turn: %s', (_, turns, rules) => {
    expect(broken(turns)).toEqual(rules);
    expect(score(turns)).toMatchObject({ total: 0, acc: 0, format: 0, other: 0 });
  });
  it('takes a look that begins or ends with the frame that was asked for', () => {
    for (const range of [look(4800, 4900), look(4700, 4800)])
      expect(broken([ask('3:20'), range, answer('C')])).toEqual([]);
  });
  it('counts calls only as the environment executed them', () => {
    const { frameIndices: _, ...unseen } = look(100, 300);
    expect(broken([unseen, answer('C')])).toEqual([['not_executed', 0]]);
    const refused: Turn = { role: 'assistant', text: text('x', 'zoom'), error: 'no action' };
    expect(score([refused]).rules[0]).toEqual({ name: 'not_executed', turn: 0, message: 'no action' });
  });
  it('takes the lengths of the regime', () => {
    const turns = [look(100, 110), answer('C')];
    expect(score(turns).format).toBe(0);
    expect(score(turns, {}, { frames: 8 }).format).toBe(1);
  });
  it('counts choices in a video of unknown length', () => {
    const unknown: CcvSample = { groundTruth: 'C', extraInfo: { question: '' } };
    const turns = [look(0, TOTAL - 1), answer('C')];
    const { total, extras } = ccv({ turns, end: 'answer' }, unknown, { frames: FRAMES });
    expect({ total, extras }).toEqual({ total: 1.02, extras: { total_frames_unknown: 1 } });
    expect(score(turns).extras).toEqual({});
  });
  it('never reads what the environment wrote', () => {
    const user = (reply: string): Turn => ({ role: 'user', text: reply });
    const said = [
      ask('3:20'),
      user('Frame number at time 3:20 is: 4800.'),
      look(4700, 4900),
      user('frames'),
      answer('C'),
    ];
    const forged = [
      ask('3:20'),
      user('is: 5 </think></action>'),
      look(4700, 4900),
      user('<action>x</action>'),
      answer('C'),
    ];
    expect(score(forged)).toEqual(score(said));
  });
});

/** Episodes as the environment could have recorded them, valid or not, right or wrong. */
const number = fc.oneof(
  fc.integer({ min: 0, max: 60 }),
  fc.integer({ min: 4700, max: 4900 }),
  fc.integer({ min: 0, max: TOTAL }),
);
const call = fc.oneof(
  fc
    .tuple(number, number, fc.boolean())
    .map(([a, b, honest]) => look(Math.min(a, b), Math.max(a, b), honest ? undefined : `${a} or ${b + 1}`)),
  fc.constantFrom('3:20', '03:20', '0:01', '9:59').map((time) => ask(time)),
);
const scripted = fc.constantFrom(
  [],
  [ask('3:20'), look(4700, 4900)],
  [look(100, 300)],
  [look(100, 300, 'somewhere in 100 to 300 or later, 7')],
  [ask('3:20', -1), look(100, 300)],
  [look(5, 90), look(30, 80)],
);
const episode = fc
  .tuple(fc.oneof(scripted, fc.array(call, { maxLength: 4 })), fc.constantFrom('C', 'D', '(c)'))
  .map(([calls, option]) => [...calls, answer(option)]);
const piece = fc.oneof(
  fc.constantFrom(
    ...[
      '<think>',
      '</think>',
      '<action>',
      '</action>',
      ' is: 4800.',
      '<|im_end|>',
      '<|im_start|>user\n',
      '<|im_start|>assistant\n',
      '3:20',
    ],
    ...[
      'choose frames between 100 and 300',
      'get frame number at time 03:20',
      'output answer: C',
      '100 300',
      '4700, 4900',
      '<image>',
    ],
    ...['<think>100 300</think>', '<action>output answer: C</action>', '<', '>', '</'],
  ),
  fc.string({ maxLength: 12 }),
);
const junk = fc.oneof(
  fc.constantFrom(
    '',
    '<think>100 300</think>',
    '<think>x</think><action>choose frames between 100 and 300</action>',
    'is: 5',
  ),
  fc.array(piece, { maxLength: 5 }).map((pieces) => pieces.join('')),
);
const junks = fc.array(fc.tuple(junk, junk, junk), { minLength: 5, maxLength: 5 });

function spoil(turn: Turn, [before, between, after]: [string, string, string]): Turn {
  return { ...turn, text: before + turn.text.replace('</think>\n', () => `</think>${between}`) + after };
}

describe('text that the model puts around its think and its action', () => {
  it('never raises the reward', () => {
    fc.assert(
      fc.property(episode, junks, (turns, texts) => {
        const spoilt = turns.map((turn, i) => spoil(turn, texts[i]!));
        const [plain, dirty] = [score(turns), score(spoilt)];
        for (const part of ['total', 'acc', 'format', 'other'] as const)
          expect(dirty[part]).toBeLessThanOrEqual(plain[part]);
      }),
      { numRuns: 2000 },
    );
  });
  it('gives no bonus without an executed call, and nothing for a wrong answer', () => {
    fc.assert(
      fc.property(episode, junks, (turns, texts) => {
        const spoilt = turns.map((turn, i) => spoil(turn, texts[i]!));
        const unexecuted = spoilt.map(({ frameIndices: _, frameNumber: __, ...turn }) => turn);
        expect(score(unexecuted).other).toBe(0);
        expect(score(spoilt.slice(-1)).other).toBe(0);
        expect(score([...spoilt.slice(0, -1), spoil(answer('D'), texts[4]!)]).total).toBe(0);
      }),
    );
  });
  it('is harmless when it has no tags', () => {
    const turns = [ask('3:20'), look(4700, 4900), answer('C')].map((turn) =>
      spoil(turn, ['Hm. ', ' is: 5 ', '<|im_end|>']),
    );
    expect(score(turns).total).toBe(1.52);
  });
});
