/** @file Seconds of each phase of a step, under verl's names. */

export class PhaseTimer {
  readonly seconds: Record<string, number> = {};
  readonly #start = performance.now();
  /** The phase being run, for whoever asks what a run is doing. */
  phase = '';

  async timed<T>(phase: string, run: () => T | Promise<T>): Promise<T> {
    const start = performance.now();
    this.phase = phase;
    try {
      return await run();
    } finally {
      this.phase = '';
      this.seconds[phase] = (this.seconds[phase] ?? 0) + (performance.now() - start) / 1000;
    }
  }

  /** Adds the whole step so far. */
  finish(): Record<string, number> {
    this.seconds.step = (performance.now() - this.#start) / 1000;
    return this.seconds;
  }
}
