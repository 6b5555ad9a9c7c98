// biome-ignore-all lint/suspicious/noTemplateCurlyInString: interpolations of configuration files.
import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadConfig } from './load.ts';
import { isOverride, parseValue, parseYaml } from './source.ts';
import { editDistance, nearest } from './suggest.ts';

describe('parseValue', () => {
  it.each<[string, unknown]>([
    ['True', true],
    ['false', false],
    ['null', null],
    ['~', null],
    ['-1', -1],
    ['5e-7', 5e-7],
    ['.5', 0.5],
    ['1.2.3', '1.2.3'],
    ['007x', '007x'],
    ['', ''],
    ['a: b # c', 'a: b # c'],
    ['"5"', '5'],
    ['[a, ${x.y}/z, "${x.y}"]', ['a', '${x.y}/z', '${x.y}']],
    ['{a: ${x}}', { a: '${x}' }],
    ['no', 'no'],
  ])('%j', (text, value) => {
    expect(parseValue(text)).toEqual(value);
  });

  it('reads lists, blocks and quoted texts as JSON does', () => {
    const json = fc.oneof(fc.array(fc.jsonValue()), fc.dictionary(fc.string(), fc.jsonValue()), fc.string());
    fc.assert(
      fc.property(json, (value) => {
        const text = JSON.stringify(value);
        expect(JSON.stringify(parseValue(text))).toBe(text);
      }),
      { examples: [['${a.b}'], [['${a.b}', '"', "'"]]] },
    );
  });
});

describe('any input', () => {
  const inputErrorOr = (body: () => void): void => {
    try {
      body();
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
    }
  };
  it('is a configuration or an InputError: a word of the command line', () => {
    const value = fc.oneof(fc.string(), fc.json());
    const key = fc.constantFrom(
      'data.train_files',
      'trainer',
      'reward.default',
      'env.registry',
      'data.synth',
      'a.b',
      '__proto__.x',
    );
    fc.assert(
      fc.property(key, value, (k, v) => inputErrorOr(() => loadConfig({ overrides: [`${k}=${v}`] }))),
      { numRuns: 60 },
    );
  });
  it('is values or an InputError: a file', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => inputErrorOr(() => parseYaml(text, 'x.yaml'))));
  });
  it('keeps a text as it is', () => {
    const text = fc.string().filter((s) => !s.includes('${'));
    fc.assert(
      fc.property(text, (s) => {
        const item = `trainer.experiment_name=${JSON.stringify(s)}`;
        expect(isOverride(item)).toBe(true);
        expect(loadConfig({ overrides: [item] }).config.trainer.experiment_name).toBe(s);
      }),
      { numRuns: 30 },
    );
  });
});

describe('nearest', () => {
  it('is a distance', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        expect(editDistance(a, b)).toBe(editDistance(b, a));
        expect(editDistance(a, a)).toBe(0);
        expect(editDistance(a, b)).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
      }),
    );
    expect(editDistance('total_epcohs', 'total_epochs')).toBe(1);
    expect(nearest('sav_freq', ['test_freq', 'save_freq'])).toBe('save_freq');
    expect(nearest('xyz', ['save_freq'])).toBeUndefined();
  });
});
