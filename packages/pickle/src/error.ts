/** @file The one error of this package: a pickle that is damaged, too large or not allowed. */

/** The message names the source, and the global where it is about one, and the byte offset in the pickle. */
export class PickleError extends Error {
  override name = 'PickleError';
  /** Byte offset of the opcode that was refused. */
  readonly offset: number;

  constructor(source: string, offset: number, what: string) {
    super(`${source}: at byte ${offset}: ${what}`);
    this.offset = offset;
  }
}
