/**
 * @file `pnpm test [part …] [-- arguments of vitest]`: lint, typecheck, unit, golden, worker, tfjs, e2e, faults and ray, one after the other.
 * `pnpm test:worker -- "COMMAND"` tests the worker program that this shell line starts.
 * The last line is `N passed, N failed, N skipped`. With FT_REQUIRE_ALL=1 a skipped test fails the run.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { stripVTControlCharacters } from 'node:util';
import { GOLDEN_LINE, listFixtures, readSources, shortfalls, uncovered } from './golden-coverage.ts';
import type { TestResults } from './test-results-reporter.ts';

const root = join(import.meta.dirname, '..');
const goldenDir = process.env.GOLDEN_DIR ?? join(root, 'tests/fixtures');
const requireAll = process.env.FT_REQUIRE_ALL === '1';

const CHECKS: Record<string, string[]> = {
  lint: ['biome', 'check', '.'],
  typecheck: ['tsc', '-p', 'tsconfig.json'],
};
const PROJECTS = ['unit', 'golden', 'worker', 'tfjs', 'e2e', 'faults', 'ray'];
const PARTS = [...Object.keys(CHECKS), ...PROJECTS];

/** Ray listens on every interface and runs what it is sent: its tests get a network of their own. */
const LOOPBACK = join(root, 'scripts/in-loopback.sh');
/** Where not, the tests skip themselves and say what they need. */
const mayUnshare = (): boolean => spawnSync(LOOPBACK, ['true'], { stdio: 'ignore' }).status === 0;

interface Part extends TestResults {
  name: string;
  seconds: number;
  golden: string[];
}

/** Runs a program of node_modules/.bin, streaming its output; returns the exit code and the golden lines. */
async function execute(
  words: readonly string[],
  { env, loopback }: { env: NodeJS.ProcessEnv; loopback: boolean },
): Promise<{ code: number; golden: string[] }> {
  const [name = '', ...args] = words;
  const program = join(root, 'node_modules/.bin', name);
  const [command, ...rest] = loopback ? [LOOPBACK, program] : [program];
  const child = spawn(command, [...rest, ...args], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : {}), ...env },
  });
  const golden: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    const plain = stripVTControlCharacters(line);
    if (GOLDEN_LINE.test(plain)) golden.push(plain);
    console.log(line);
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve(status ?? 1));
  });
  return { code, golden };
}

async function runPart(name: string, extra: readonly string[], scratch: string): Promise<Part> {
  const start = performance.now();
  console.log(`\n=== ${name}`);
  const check = CHECKS[name];
  const target = join(scratch, `${name}.json`);
  const words = check ?? [
    'vitest',
    'run',
    '--project',
    name,
    '--passWithNoTests',
    '--reporter=default',
    '--reporter=./scripts/test-results-reporter.ts',
    ...extra,
  ];
  const loopback = name === 'ray' && mayUnshare();
  const { code, golden } = await execute(words, { env: { FT_TEST_RESULTS: target }, loopback });
  const seconds = (performance.now() - start) / 1000;
  const results: TestResults = existsSync(target)
    ? JSON.parse(readFileSync(target, 'utf8'))
    : { passed: check && code === 0 ? 1 : 0, failed: [], skipped: [] };
  results.failed.push(...shortfalls(golden, results.failed));
  if (code !== 0 && results.failed.length === 0) results.failed.push(`${words.join(' ')} (exit ${code})`);
  return { name, seconds, golden, ...results };
}

function list(title: string, lines: readonly string[]): void {
  if (lines.length > 0) console.log([`\n${title}:`, ...lines.map((line) => `  ${line}`)].join('\n'));
}

function summarize(parts: readonly Part[]): number {
  const golden = parts.find(({ name }) => name === 'golden');
  console.log('\n=== summary');
  for (const { name, seconds, passed, failed, skipped } of parts)
    console.log(
      `${name.padEnd(10)} ${seconds.toFixed(1).padStart(7)} s  ${passed} passed, ${failed.length} failed, ${skipped.length} skipped`,
    );
  if (golden) {
    list('golden files', golden.golden);
    if (!existsSync(goldenDir)) list('golden files that are missing', [`${goldenDir}: there is no such folder`]);
    else
      list(
        'golden files that no test reads (missing)',
        uncovered(listFixtures(goldenDir), {
          lines: golden.golden,
          sources: readSources([join(root, 'tests/golden'), join(root, 'tests/unit'), join(root, 'packages')]),
        }),
      );
  }
  const failed = parts.flatMap((part) => part.failed);
  const skipped = parts.flatMap((part) => part.skipped);
  list('failed', failed);
  list(
    requireAll ? 'skipped (FT_REQUIRE_ALL=1: a failure)' : 'skipped',
    skipped.map(({ name, reason }) => `${name}: ${reason}`),
  );
  const passed = parts.reduce((sum, part) => sum + part.passed, 0);
  console.log(`\n${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
  return failed.length > 0 || (requireAll && skipped.length > 0) ? 1 : 0;
}

async function main(args: readonly string[]): Promise<number> {
  const first = args.findIndex((word) => !PARTS.includes(word));
  const chosen = first < 0 ? args : args.slice(0, first);
  const extra = first < 0 ? [] : args.slice(first).filter((word) => word !== '--');
  if (chosen.length === 0 && extra.length > 0) {
    console.error(`pnpm test: "${extra[0]}" is not understood: name parts first (${PARTS.join(', ')})`);
    return 2;
  }
  const isCommand = chosen.length === 1 && chosen[0] === 'worker' && extra.length > 0 && args[first] === '--';
  if (isCommand) process.env.FT_WORKER_COMMAND = extra.join(' ');
  const scratch = mkdtempSync(join(tmpdir(), 'test-results-'));
  try {
    const parts: Part[] = [];
    for (const name of chosen.length > 0 ? chosen : PARTS)
      parts.push(await runPart(name, isCommand ? [] : extra, scratch));
    return summarize(parts);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

process.exitCode = await main(process.argv.slice(2));
