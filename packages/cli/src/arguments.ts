/** @file A command line taken apart: command, flags, `key=value` words; every word is understood or refused by name. */
import { isOverride, nearest } from '@frame-thinker/config';
import { InputError } from '@frame-thinker/core';
import type { Command } from './command.ts';

/** Flags that every command has. */
const COMMON = ['help', 'version', 'verbose'];

/** `--local_dir` → `--local-dir`; values and `key=value` words stay as they are. */
export function normalizeFlags(args: readonly string[]): string[] {
  return args.map((word) => word.replace(/^--[A-Za-z][\w-]*(?==|$)/, (flag) => flag.replaceAll('_', '-')));
}

/** Finds the command by its first word. @throws InputError naming the one that was meant */
export function findCommand(commands: readonly Command[], word: string): Command {
  const command = commands.find(({ name }) => name === word);
  if (command) return command;
  const names = commands.map(({ name }) => name);
  const near = nearest(word, names);
  throw new InputError(
    `unknown command "${word}"${near ? ` - did you mean "${near}"?` : ''} (commands: ${names.join(', ')})`,
  );
}

/** @throws InputError on the first flag that the command does not have, with the one that was meant */
export function refuseUnknownFlags(command: Command, args: readonly string[]): void {
  const known = new Map<string, string>();
  for (const [name, { alias, type }] of [
    ...Object.entries(command.flags),
    ...COMMON.map((name) => [name, {}] as const),
  ] as [string, { alias?: string; type?: string }][]) {
    known.set(`--${name}`, name);
    if (type === 'boolean') known.set(`--no-${name}`, name);
    if (alias) known.set(`-${alias}`, name);
  }
  known.set('-h', 'help');
  for (const word of args) {
    if (!/^--?[A-Za-z]/.test(word)) continue;
    const flag = word.split('=')[0] ?? word;
    if (known.has(flag)) continue;
    const bare = word.replace(/^-+/, '');
    const near = nearest(flag, known.keys());
    const hint =
      command.overrides !== undefined && flag.includes('.') && isOverride(bare)
        ? ` - did you mean ${bare} (no dashes)?`
        : near
          ? ` - did you mean "${near}"?`
          : '';
    throw new InputError(`${command.name}: unknown option ${flag}${hint}`);
  }
}

/** Splits the words that are not flags. @throws InputError on a word that is neither expected nor `key=value` */
export function splitWords(command: Command, rest: readonly string[]): { words: string[]; overrides: string[] } {
  const expected = command.words ?? [];
  const words = rest.slice(0, expected.length);
  for (const [i, options] of expected.entries()) {
    const word = words[i];
    if (word !== undefined && options.includes(word)) continue;
    const near = word === undefined ? undefined : nearest(word, options);
    const got = word === undefined ? 'nothing' : `"${word}"`;
    throw new InputError(
      `${command.name}: expected ${options.join(' or ')}, got ${got}${near ? ` - did you mean "${near}"?` : ''}`,
    );
  }
  const overrides = rest.slice(expected.length);
  for (const word of overrides) {
    if (command.overrides !== undefined && isOverride(word)) continue;
    const wanted = command.overrides === undefined ? 'it takes options only' : 'expected key=value';
    throw new InputError(`${command.name}: "${word}" is not understood: ${wanted} (see pnpm ${command.name} --help)`);
  }
  return { words, overrides };
}
