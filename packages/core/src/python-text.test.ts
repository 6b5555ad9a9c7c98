import { describe, expect, it } from 'vitest';
import { PythonError, pythonInt, pythonRegExp, pythonStrip } from './python-text.ts';

describe('pythonInt', () => {
  it.each([
    ['12', 12n],
    [' -7\n', -7n],
    ['+1_0', 10n],
    ['٠٣', 3n],
    ['７００６', 7006n],
    ['𝟗', 9n],
    ['\x1c5\x85', 5n],
    ['9007199254740993', 9007199254740993n],
  ])('parses %j', (text, value) => expect(pythonInt(text)).toBe(value));
  it.each(['', ' ', '1.5', '²', '1__0', '_1', '1_', '0x1', '1 2', '\ufeff1', '--1', '1e1'])('refuses %j', (text) => {
    expect(() => pythonInt(text)).toThrow(PythonError);
  });
  it('takes 4300 digits and no more', () => {
    expect(pythonInt('1'.repeat(4300)).toString()).toHaveLength(4300);
    expect(() => pythonInt('1'.repeat(4301))).toThrow('4301 digits');
  });
});

describe('pythonRegExp', () => {
  it('has Unicode word boundaries', () => {
    const number = pythonRegExp('\\b\\d+\\b', 'g');
    expect('第100帧 200 frame_300 (400)'.match(number)).toEqual(['200', '400']);
  });
  it('has white space as Python does', () => {
    expect(pythonRegExp('^\\s+$').test('\x1c\x1f\x85\xa0\u3000')).toBe(true);
    expect(pythonRegExp('\\s').test('\ufeff\u200b')).toBe(false);
  });
});

describe('pythonStrip', () => {
  it('strips what Python strips', () => {
    expect(pythonStrip('\x85 a b\x1c\n')).toBe('a b');
    expect(pythonStrip('\ufeffa')).toBe('\ufeffa');
    expect(pythonStrip(' \n')).toBe('');
  });
  it('is linear on long inner white space', () => {
    expect(pythonStrip(`a${' '.repeat(200_000)}b`)).toHaveLength(200_002);
  });
});
