import { describe, expect, it } from 'vitest';
import { normalizeAnswer, verdict } from './answers.ts';

describe('verdict', () => {
  it.each(['C', 'c', ' C.', '(C)', '"C"', 'C)', '**C**', '(c).'])('takes %j for C', (answer) => {
    expect(verdict(answer, 'C')).toBe(true);
  });
  it.each(['', 'D', 'C or D', 'CC', 'option C', '.', 'A, C'])('does not take %j for C', (answer) => {
    expect(verdict(answer, 'C')).toBe(false);
  });
  it('compares words too, and never matches an empty truth', () => {
    expect(verdict('a  Red car.', 'a red car')).toBe(true);
    expect(verdict('', '')).toBe(false);
    expect(verdict('.', ' ')).toBe(false);
  });
  it('keeps a normalised answer as it is', () => {
    expect(normalizeAnswer(normalizeAnswer('((c.'))).toBe('C');
  });
});
