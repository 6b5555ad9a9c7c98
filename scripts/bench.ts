/**
 * @file `pnpm bench NAME [--json] [--case CASE|all] [--rounds N] [options]`: runs scripts/bench/NAME.ts. With `--json` each main
 * case is a line of JSON on the console (`--case` picks another, `all` prints a line each) and the rest goes to stderr.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { InputError, messageOf } from '@frame-thinker/core';
import { type BenchFlags, type BenchModule, describeResult, jsonLine } from './bench-result.ts';

const folder = join(import.meta.dirname, 'bench');
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => file.slice(0, -3))
  .sort();

async function run([name, ...args]: readonly string[]): Promise<void> {
  if (name === undefined || !names.includes(name))
    throw new InputError(`bench: ${name ?? 'no name'}: expected one of ${names.join(', ')}`);
  const module = (await import(join(folder, `${name}.ts`))) as BenchModule;
  const options = {
    json: { type: 'boolean', default: false },
    case: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    ...module.options,
  } as const;
  let values: Record<string, unknown>;
  try {
    values = parseArgs({ args: [...args], options, strict: true }).values;
  } catch (error) {
    throw new InputError(`bench ${name}: ${messageOf(error).split('. ')[0]}`);
  }
  const { json, case: only, rounds, ...flags } = values;
  if (!(Number.isInteger(Number(rounds)) && Number(rounds) > 0))
    throw new InputError(`bench ${name}: --rounds ${rounds}: expected a whole number above 0`);
  const log = json ? console.error : console.log;
  const results = await module.bench({ rounds: Number(rounds), flags: flags as BenchFlags, log });
  const chosen =
    only === undefined ? (json ? results.slice(0, module.main ?? 1) : results) : results.filter((r) => r.case === only);
  const shown = only === 'all' ? results : chosen;
  if (shown.length === 0)
    throw new InputError(
      `bench ${name}: --case ${only}: expected all or one of ${results.map((r) => r.case).join(', ')}`,
    );
  for (const result of shown) console.log(json ? jsonLine(result) : describeResult(result));
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof InputError ? error.message : error);
  process.exitCode = error instanceof InputError ? 2 : 1;
}
