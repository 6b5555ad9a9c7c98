/** @file Typed errors. Every message says what, where, and what to do. */

/** Bad input, config or checkpoint, or no space: printed as one line, exit code 2. */
export class InputError extends Error {
  override name = 'InputError';
}

/** The run itself failed: exit code 1. */
export class RunError extends Error {
  override name = 'RunError';
}

/** A bug: a broken invariant of ours. */
export class InvariantError extends Error {
  override name = 'InvariantError';
}

/** Throws InvariantError when the condition does not hold. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
