/** @file What a command is: its flags as data, so that misspelt ones can be named, and its body. */
import type { InferredOptionTypes, Options } from 'yargs';

export interface Invocation<O extends Record<string, Options>> {
  flags: InferredOptionTypes<O>;
  /** `key=value` words, in order. */
  overrides: string[];
  /** Words of the command's `words`, e.g. `synth` of `data synth`. */
  words: string[];
}

export interface Command<O extends Record<string, Options> = Record<string, Options>> {
  name: string;
  describe: string;
  /** Flags in kebab-case; underscore spellings are understood too. */
  flags: O;
  /** Words that must follow the name, each one of the listed. */
  words?: readonly (readonly string[])[];
  /** What `key=value` words set; absent: the command takes none. */
  overrides?: string;
  examples: readonly string[];
  /** Returns the exit code: 0 done, 130 or 143 after a signal. */
  run(invocation: Invocation<O>): Promise<number>;
}

/** Keeps the types of the flags for the body. */
export function defineCommand<const O extends Record<string, Options>>(command: Command<O>): Command {
  return command as unknown as Command;
}
