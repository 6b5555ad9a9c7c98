/** @file The environment of rows that name none: one turn, whose answer, if it has one, is read. */
import { type Grammar, parseAction } from '@frame-thinker/agent-env';
import type { EndReason, Environment, Observation } from '@frame-thinker/core';

export function createSingleTurn(grammar: Grammar): Environment {
  return {
    reset: async () => {},
    step: async (text) => {
      const over = (reason: EndReason, more: Partial<Observation> = {}): Observation => ({
        frames: [],
        done: true,
        reason,
        ...more,
      });
      if (text === '') return over('empty');
      const parsed = parseAction(text, grammar);
      if (parsed.kind !== 'action') return over(parsed.kind, { error: parsed.message });
      if (parsed.action.kind === 'answer') return over('answer', { action: parsed.action });
      return over('max_turns', { error: 'the row has no environment, so a look cannot be answered' });
    },
    close: async () => {},
  };
}
