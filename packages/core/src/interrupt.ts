/** @file Ctrl-C and SIGTERM: the first asks the run to save and end, the second ends it at once. */

export interface Interrupt {
  /** The signal that asked for the end. */
  signal?: 'SIGINT' | 'SIGTERM';
  dispose(): void;
}

export const exitCodeOf = (signal: 'SIGINT' | 'SIGTERM'): number => (signal === 'SIGINT' ? 130 : 143);

export function listenForInterrupt(
  say: (line: string) => void,
  {
    note = 'saving the last finished step; once more ends at once',
    onSignal,
  }: { note?: string; onSignal?: () => void } = {},
): Interrupt {
  const handlers = (['SIGINT', 'SIGTERM'] as const).map((signal) => {
    const handler = (): void => {
      if (interrupt.signal) process.exit(exitCodeOf(signal));
      interrupt.signal = signal;
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
