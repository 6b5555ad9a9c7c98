import { createRng, type Sample } from '@frame-thinker/core';
import { describe, expect, it } from 'vitest';
import { createSingleTurn } from './single-turn.ts';

const sample: Sample = { uid: '0', prompt: [], dataSource: 's', groundTruth: 'A', extraInfo: {} };
const rng = createRng(1, 'sample');

describe('a row without an environment', () => {
  it.each([
    ['<think>so</think><action>output answer: A</action>', 'answer', { kind: 'answer', answer: 'A' }],
    ['<think>so</think><action>choose frames between 1 and 90</action>', 'max_turns', undefined],
    ['<think>so</think>', 'no_action', undefined],
    ['<action>dance</action>', 'bad_action', undefined],
    ['', 'empty', undefined],
  ] as const)('is over after one turn: %s', async (text, reason, action) => {
    const environment = createSingleTurn('strict');
    await environment.reset(sample, rng);
    const observation = await environment.step(text, rng);
    expect(observation).toMatchObject({ done: true, reason, frames: [] });
    expect(observation.message).toBeUndefined();
    expect(observation.action).toEqual(action);
    await environment.close();
  });
});
