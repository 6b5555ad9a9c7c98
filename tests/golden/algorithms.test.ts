import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AlgorithmError } from '@frame-thinker/algorithms';
import { expect, it } from 'vitest';
import { counterpart, type VerlArguments } from './algorithms-adapters.ts';

interface Row {
  id: string;
  fn: string;
  args: VerlArguments;
  output: unknown;
  f64_diff: number | null;
}

const NUMBERS: Record<string, number> = { NaN: Number.NaN, Infinity: Infinity, '-Infinity': -Infinity };
const revive = (_: string, value: unknown): unknown =>
  typeof value === 'string' && Object.hasOwn(NUMBERS, value) ? NUMBERS[value] : value;

/** Where two results differ; undefined when they don't. Numbers: 1e-5 absolute and relative, plus the float32 noise of the row. */
function difference(actual: unknown, expected: unknown, noise: number, at = ''): string | undefined {
  if (typeof expected === 'number') {
    if (typeof actual !== 'number') return `${at}: ${actual} is not ${expected}`;
    if (Object.is(actual, expected) || actual === expected) return undefined;
    const bound = 1e-5 + 1e-5 * Math.abs(expected) + 2 * noise * Math.max(1, Math.abs(expected));
    return Math.abs(actual - expected) <= bound ? undefined : `${at}: ${actual} is not ${expected}`;
  }
  if (expected === null || typeof expected !== 'object')
    return actual === expected ? undefined : `${at}: ${actual} is not ${expected}`;
  if (actual === null || typeof actual !== 'object') return `${at}: ${actual} is no object or list`;
  const [got, want] = [Object.entries(actual), new Map(Object.entries(expected))];
  const extra = got.find(([key]) => !want.has(key));
  if (extra) return `${at}/${extra[0]}: too much`;
  const have = new Map(got);
  for (const [key, value] of want) {
    if (!have.has(key)) return `${at}/${key}: missing`;
    const found = difference(have.get(key), value, noise, `${at}/${key}`);
    if (found) return found;
  }
  return undefined;
}

/** Runs one row; undefined when it agrees. */
function check({ fn, args, output, f64_diff }: Row): string | undefined {
  const run = counterpart(fn);
  if (!run) return ': no such function';
  const mustThrow = output !== null && typeof output === 'object' && 'error' in output;
  try {
    const actual = run(args);
    return mustThrow ? `: must throw ${JSON.stringify(output)}` : difference(actual, output, f64_diff ?? 0);
  } catch (error) {
    return mustThrow && error instanceof AlgorithmError ? undefined : `: throws ${error}`;
  }
}

it('algorithms.json', () => {
  const path = join(process.env.GOLDEN_DIR ?? 'tests/fixtures', 'algorithms', 'algorithms.json');
  const rows = JSON.parse(readFileSync(path, 'utf8'), revive) as Row[];
  const failures = new Map<string, string[]>();
  let equal = 0;
  for (const row of rows) {
    const found = check(row);
    if (found === undefined) equal++;
    else failures.set(row.fn, [...(failures.get(row.fn) ?? []), `${row.id}${found.slice(0, 200)}`]);
  }
  console.log(`golden algorithms/algorithms.json: ${equal} of ${rows.length}`);
  for (const [fn, found] of failures)
    console.log(`  ${fn}: ${found.length} of ${rows.filter((row) => row.fn === fn).length} differ, first ${found[0]}`);
  expect(rows.length).toBeGreaterThan(0);
  expect([...failures.values()].flat()).toEqual([]);
});
