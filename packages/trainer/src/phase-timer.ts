/** @file Seconds of each phase of a step, under verl's names. */

export class PhaseTimer {
  readonly seconds: Record<string, number> = {};
  readonly #start = performance.now();
  readonly #onPhase: (phase: string) => void;

  /** @param onPhase told as each phase begins: what a run that hangs or was killed was doing */
  constructor(onPhase: (phase: string) => void) {
    this.#onPhase = onPhase;
  }

  async timed<T>(phase: string, run: () => T | Promise<T>): Promise<T> {
    const start = performance.now();
    this.#onPhase(phase);
    try {
      return await run();
    } finally {
      this.seconds[phase] = (this.seconds[phase] ?? 0) + (performance.now() - start) / 1000;
    }
  }

  /** Adds the whole step so far. */
  finish(): Record<string, number> & { step: number } {
    return { ...this.seconds, step: (performance.now() - this.#start) / 1000 };
  }
}
