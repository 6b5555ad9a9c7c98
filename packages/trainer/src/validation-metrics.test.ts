import type { Trajectory } from '@frame-thinker/core';
import { expect, it } from 'vitest';
import type { ScoredGroup } from './scored-groups.ts';
import { questionMetrics } from './validation-metrics.ts';

/** Samples of one question: an answer each, right when it is A; undefined: its video failed. */
function group(uid: string, answers: readonly (string | undefined)[]): ScoredGroup {
  const members = answers.map((answer, sample) => {
    const trajectory = {
      ...{ uid, sample, step: 0, promptLength: 0, frames: [], end: 'answer', toolCalls: 0 },
      turns: [{ role: 'assistant', start: 0, end: 0, text: '', ms: 0, action: { kind: 'answer', answer } }],
      ...{ ids: new Int32Array(0), mask: new Uint8Array(0), logProbs: new Float32Array(0) },
    } as Trajectory;
    if (answer === undefined) return { trajectory, text: '', error: 'decode_error' };
    const acc = answer === 'A' ? 1 : 0;
    return { trajectory, text: '', reward: { total: acc * 1.5, acc, format: 1, other: 0, rules: [], extras: {} } };
  });
  const sample = { uid, prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} };
  return { group: { sample, position: 0, n: answers.length, step: 0 }, members };
}

it('one sample a question has means alone', () => {
  expect(questionMetrics('s', [group('a', ['A']), group('b', ['B'])], 1)).toEqual({
    'val-core/s/acc/mean@1': 0.5,
    'val-core/s/reward/mean@1': 0.75,
    'val-aux/s/format/mean@1': 1,
  });
});

it('several have best, worst and majority of 2, 4, … and all, close to what draws with replacement give', () => {
  const metrics = questionMetrics('s', [group('a', ['A', 'B', 'B', 'A', 'B', 'A']), group('b', Array(6).fill('A'))], 6);
  expect(Object.keys(metrics).filter((name) => name.startsWith('val-core/s/acc/'))).toEqual([
    'val-core/s/acc/mean@6',
    'val-core/s/acc/best@6/mean',
    'val-core/s/acc/best@6/std',
    'val-core/s/acc/maj@6/mean',
    'val-core/s/acc/maj@6/std',
  ]);
  expect(metrics['val-core/s/acc/mean@6']).toBe(0.75);
  expect(metrics['val-aux/s/acc/std@6']).toBe(0.25);
  const at = (name: string): number => metrics[`val-aux/s/acc/${name}`]!;
  // Of two draws from half: one is right with 3/4, both with 1/4; the other question is always right.
  expect(Math.abs(at('best@2/mean') - (0.75 + 1) / 2)).toBeLessThan(0.03);
  expect(Math.abs(at('worst@2/mean') - (0.25 + 1) / 2)).toBeLessThan(0.03);
  expect(Math.abs(at('best@2/std') - Math.sqrt(0.75 * 0.25) / 2)).toBeLessThan(0.03);
  expect(Math.abs(at('best@4/mean') - (1 - 1 / 16 + 1) / 2)).toBeLessThan(0.03);
  // The first of two that disagree wins, so the majority is right in half of the draws.
  expect(Math.abs(at('maj@2/mean') - (0.5 + 1) / 2)).toBeLessThan(0.03);
  expect(questionMetrics('s', [group('a', ['A', 'B'])], 2)).toEqual(questionMetrics('s', [group('a', ['A', 'B'])], 2));
});

it('an episode without a reward is wrong and has no vote of its own', () => {
  const metrics = questionMetrics('s', [group('a', ['A', undefined, undefined])], 3);
  expect(metrics['val-core/s/acc/mean@3']).toBeCloseTo(1 / 3);
  expect(metrics['val-core/s/acc/maj@3/mean']).toBeLessThan(0.5);
});
