import { afterEach, describe, expect, it, vi } from 'vitest';
import { listenForInterrupt } from './interrupt.ts';

afterEach(() => vi.restoreAllMocks());

describe('an interrupt', () => {
  it('asks for the end once, however often one press comes, and ends at once by a second press', () => {
    const exit = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
    let now = 1000;
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    const said: string[] = [];
    const asked = vi.fn();
    const interrupt = listenForInterrupt((line) => said.push(line), { note: 'saving', onSignal: asked });
    try {
      for (const after of [0, 38, 69]) {
        now = 1000 + after;
        process.emit('SIGINT');
      }
      expect(interrupt.signal).toBe('SIGINT');
      expect(said).toEqual(['SIGINT: saving']);
      expect(asked).toHaveBeenCalledOnce();
      expect(exit).not.toHaveBeenCalled();
      now = 1500;
      process.emit('SIGTERM');
      expect(exit).toHaveBeenCalledExactlyOnceWith(143);
    } finally {
      interrupt.dispose();
    }
  });
});
