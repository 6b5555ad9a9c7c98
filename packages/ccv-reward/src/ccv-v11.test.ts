import { describe, expect, it } from 'vitest';
import { ccvV11 } from './ccv-v11.ts';

const extraInfo = { question: 'At 1:00?', total_frames: 9000 };
const time = '<think>t</think><action>get frame number at time 1:00</action> is: 60.';
const look = '<think>50 90</think><action>choose frames between 50 and 90</action>';
const answer = '<think>a</think><action>output answer: C</action>';

describe('ccvV11', () => {
  it('has its bonuses as options', () => {
    const input = { solutionStr: time + look + answer, groundTruth: 'C', extraInfo };
    expect(ccvV11(input)).toMatchObject({ total: 1.52, acc: 1, format: 1, other: 0.52, rules: [] });
    expect(ccvV11({ ...input, timeBonus: 0, choiceBonus: 0.5 })).toMatchObject({ total: 1.5, other: 0.5 });
  });
  it('names what broke or what the original would raise', () => {
    const rule = (solutionStr: string, info: unknown = extraInfo) =>
      ccvV11({ solutionStr, groundTruth: 'C', extraInfo: info }).rules.map(({ name, turn }) => `${name} ${turn}`);
    expect(rule(look + look + answer)).toEqual(['repeated_range 1']);
    expect(rule(answer + look)).toEqual(['no_answer 1']);
    expect(rule(time + answer)).toEqual(['time_unused 1']);
    expect(rule(look)).toEqual(['no_answer 0']);
    expect(rule('')).toEqual(['think_action_count 0']);
    expect(rule(answer, null)).toEqual(['raised:TypeError 0']);
    expect(rule(answer, {})).toEqual(['raised:KeyError 0']);
    expect(rule(answer, { question: '' })).toEqual(['raised:KeyError 0']);
  });
});
