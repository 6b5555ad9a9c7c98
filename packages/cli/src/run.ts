/** @file From a command line to an exit code. */
import { InputError, messageOf, RunError } from '@frame-thinker/core';
import yargs from 'yargs';
import { findCommand, normalizeFlags, refuseUnknownFlags, splitWords } from './arguments.ts';
import type { Command } from './command.ts';
import { COMMANDS } from './commands/index.ts';

export const EXIT = { done: 0, failed: 1, input: 2 } as const;

export interface RunOptions {
  commands?: readonly Command[];
  out?: (text: string) => void;
  err?: (text: string) => void;
}

/**
 * Runs one command.
 * @param args the words behind the program's name
 * @returns 0 done; 1 the run failed; 2 bad input; what the command says otherwise (130, 143 after a signal)
 */
export async function run(args: readonly string[], options: RunOptions = {}): Promise<number> {
  const { commands = COMMANDS, out = console.log, err = console.error } = options;
  try {
    return await dispatch(normalizeFlags(args), commands, out);
  } catch (error) {
    return report(error, { verbose: args.includes('--verbose'), err });
  }
}

/** Prints an error as its kind asks for: one line when a person can act on it, the stack when it is a bug of ours. */
export function report(error: unknown, { verbose, err }: { verbose: boolean; err: (text: string) => void }): number {
  const expected = error instanceof InputError || error instanceof RunError;
  if (expected && !verbose) err(error.message);
  else err(error instanceof Error ? (error.stack ?? error.message) : messageOf(error));
  if (!expected) err('This is a bug of Frame Thinker: please report it with the lines above.');
  return error instanceof InputError ? EXIT.input : EXIT.failed;
}

async function dispatch(args: string[], commands: readonly Command[], out: (text: string) => void) {
  const [first, ...rest] = args;
  if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
    out(overview(commands));
    return EXIT.done;
  }
  const command = findCommand(commands, first);
  refuseUnknownFlags(command, rest);
  const parser = yargs(rest)
    .scriptName('pnpm')
    .usage(usage(command))
    .options(command.flags)
    .option('verbose', { type: 'boolean', describe: 'print stacks of errors' })
    .example(command.examples.map((example) => [example] as [string]))
    .parserConfiguration({
      'dot-notation': false,
      'duplicate-arguments-array': false,
      'parse-positional-numbers': false,
    })
    .version(false)
    .help('help')
    .alias('help', 'h')
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .exitProcess(false)
    .showHelpOnFail(false)
    .fail((message, error) => {
      throw error ?? new InputError(`${command.name}: ${message.replaceAll('\n', ' ')}`);
    });
  if (rest.includes('--help') || rest.includes('-h')) {
    out(await parser.getHelp());
    return EXIT.done;
  }
  const parsed = await parser.parseAsync();
  for (const [name, { type }] of Object.entries(command.flags)) {
    if (type === 'number' && Number.isNaN(parsed[name]))
      throw new InputError(`${command.name}: --${name}: expected a number`);
    if (type === 'string' && [parsed[name]].flat().includes(''))
      throw new InputError(`${command.name}: --${name}: expected a value behind it`);
  }
  const { words, overrides } = splitWords(command, parsed._.map(String));
  return command.run({ flags: parsed as never, words, overrides });
}

function usage(command: Command): string {
  const words = (command.words ?? []).map((options) => ` ${options.join('|')}`).join('');
  const overrides = command.overrides === undefined ? '' : ' [key=value …]';
  const about = command.overrides === undefined ? '' : `\n\nkey=value: ${command.overrides}`;
  return `pnpm ${command.name}${words} [options]${overrides}\n\n${command.describe}${about}`;
}

function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length)) + 2;
  return [
    'Frame Thinker: long-video question answering that looks again, trained by GRPO.',
    '',
    ...commands.map(({ name, describe }) => `  pnpm ${name.padEnd(width)}${describe}`),
    '',
    'pnpm <command> --help tells more.',
  ].join('\n');
}
