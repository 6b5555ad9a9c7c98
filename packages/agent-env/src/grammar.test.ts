import { describe, expect, it } from 'vitest';
import { parseAction } from './grammar.ts';

const act = (block: string) => `<think>t</think>\n<action>${block}</action><|im_end|>`;

describe('parseAction, strict', () => {
  it.each([
    ['choose frames between 10 and 200', { kind: 'frames', start: 10, end: 200 }],
    ['\n choose frames between 10 and 200 ', { kind: 'frames', start: 10, end: 200 }],
    ['get frame number at time 3:05', { kind: 'time', time: '3:05', seconds: 185 }],
    ['get frame number at time 62:30', { kind: 'time', time: '62:30', seconds: 3750 }],
    ['output answer: C', { kind: 'answer', answer: 'C' }],
    ['output answer:(c).', { kind: 'answer', answer: '(c).' }],
    [
      'output answer: choose frames between 447 and 489',
      { kind: 'answer', answer: 'choose frames between 447 and 489' },
    ],
  ])('takes %j', (block, action) => {
    expect(parseAction(act(block), 'strict')).toMatchObject({ kind: 'action', action });
  });
  it.each([
    'choose frames between 10 and 200.',
    'please choose frames between 10 and 200',
    'choose frames between ١٠ and 200',
    'get frame number at time 3:5',
    'get frame number at time 3:60',
    'get frame number at time 1:02:03',
    'get frame number at time -1:30',
    'output answer:',
    '',
  ])('refuses %j', (block) => {
    expect(parseAction(act(block), 'strict').kind).toBe('bad_action');
  });
  it('takes the last complete block', () => {
    const text = `${act('output answer: A')}${act('choose frames between 1 and 30')}<action>unfinished`;
    expect(parseAction(text, 'strict')).toMatchObject({ action: { kind: 'frames' } });
    expect(parseAction('no block', 'strict').kind).toBe('no_action');
  });
  it('keeps numbers of any length finite', () => {
    const parsed = parseAction(act(`choose frames between 1 and ${'9'.repeat(400)}`), 'strict');
    expect(parsed).toMatchObject({ action: { end: Number.MAX_SAFE_INTEGER } });
  });
});

describe('parseAction, reference', () => {
  it('finds a choice anywhere, even in an answer', () => {
    const parsed = parseAction(act('output answer: choose frames between 447 and 489'), 'reference');
    expect(parsed).toMatchObject({ action: { kind: 'frames', start: 447, end: 489 } });
  });
  it('takes Python integers in times', () => {
    expect(parseAction(act('get frame number at time 1_0:-05'), 'reference')).toMatchObject({ exactSeconds: 595n });
    expect(parseAction(act('get frame number at time 1:2:3'), 'reference').kind).toBe('bad_action');
  });
  it('records an answer', () => {
    expect(parseAction(act('output answer: C'), 'reference')).toMatchObject({ action: { answer: 'C' } });
  });
  it('refuses more digits than Python does', () => {
    const parsed = parseAction(act(`choose frames between 1 and ${'9'.repeat(4301)}`), 'reference');
    expect(parsed).toMatchObject({ kind: 'bad_action', message: expect.stringContaining('4301 digits') });
  });
});
