/** @file Runs test files in a vitest of their own: in another tree, or on another Node.js. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { root } from '../e2e/processes.ts';

export interface VitestRun {
  /** vitest's own arguments: --project, files, -t. */
  args: readonly string[];
  node?: string;
  tree?: string;
}

export interface VitestResult {
  passed: number;
  skipped: number;
  /** Names of failed tests, or the end of the output where none could be run. */
  failed: string[];
  output: string;
}

interface Report {
  numPassedTests: number;
  numPendingTests: number;
  testResults: { message: string; assertionResults: { fullName: string; status: string }[] }[];
}

export function runVitest({ args, node = process.execPath, tree = root }: VitestRun): Promise<VitestResult> {
  const folder = mkdtempSync(join(tmpdir(), 'ft-vitest-'));
  const report = join(folder, 'report.json');
  const words = [join(tree, 'node_modules/vitest/vitest.mjs'), 'run', ...args];
  // A vitest in a vitest is not told of the outer one. NODE_PATH would find what a tree is without.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^VITEST|^FT_TEST_RESULTS$|^NODE_PATH$/.test(name)),
  );
  const goldenDir = resolve(root, process.env.GOLDEN_DIR ?? 'tests/fixtures');
  return new Promise((done) => {
    execFile(
      node,
      [...words, '--reporter=json', `--outputFile=${report}`],
      { cwd: tree, env: { ...env, GOLDEN_DIR: goldenDir, FT_REQUIRE_ALL: '0' }, maxBuffer: 1 << 26 },
      (_, stdout, stderr) => {
        const output = `${stdout}\n${stderr}`;
        try {
          const { numPassedTests, numPendingTests, testResults } = JSON.parse(readFileSync(report, 'utf8')) as Report;
          const failed = testResults.flatMap(({ message, assertionResults }) => {
            const names = assertionResults.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName);
            return names.length > 0 || message === '' ? names : [message];
          });
          done({ passed: numPassedTests, skipped: numPendingTests, failed, output });
        } catch {
          done({ passed: 0, skipped: 0, failed: [output.slice(-2000)], output });
        } finally {
          rmSync(folder, { recursive: true, force: true });
        }
      },
    );
  });
}
