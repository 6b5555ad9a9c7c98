/** @file Ctrl-C and SIGTERM: the first asks the run to save and end, the second ends it at once. */

export interface Interrupt {
  /** The signal that asked for the end. */
  signal?: 'SIGINT' | 'SIGTERM';
  dispose(): void;
}

export const exitCodeOf = (signal: 'SIGINT' | 'SIGTERM'): number => (signal === 'SIGINT' ? 130 : 143);

/** One key press comes several times when the programs around this one pass it on, as pnpm does. */
const SAME_PRESS_MS = 300;

export function listenForInterrupt(
  say: (line: string) => void,
  {
    note = 'saving the last finished step; once more ends at once',
    onSignal,
  }: { note?: string; onSignal?: () => void } = {},
): Interrupt {
  let since = 0;
  const handlers = (['SIGINT', 'SIGTERM'] as const).map((signal) => {
    const handler = (): void => {
      if (interrupt.signal) {
        if (performance.now() - since > SAME_PRESS_MS) process.exit(exitCodeOf(signal));
        return;
      }
      interrupt.signal = signal;
      since = performance.now();
      say(`${signal}: ${note}`);
      onSignal?.();
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  const interrupt: Interrupt = {
    dispose: () => {
      for (const off of handlers) off();
    },
  };
  return interrupt;
}
