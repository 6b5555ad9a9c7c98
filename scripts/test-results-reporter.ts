/** @file A vitest reporter that writes counts, failures and skipped tests with their reasons as JSON, for `scripts/test.ts`. */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import type { Reporter, TestModule } from 'vitest/node';

export interface TestResults {
  passed: number;
  /** Names of failed tests, of files that failed to load, and unhandled errors. */
  failed: string[];
  skipped: { name: string; reason: string }[];
}

export default class TestResultsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly { message?: string }[]): void {
    const results: TestResults = { passed: 0, failed: [], skipped: [] };
    for (const module of modules) {
      const file = relative(process.cwd(), module.moduleId);
      let broken = 0;
      for (const test of module.children.allTests()) {
        const result = test.result();
        const name = `${file} > ${test.fullName}`;
        if (result.state === 'passed') results.passed++;
        else if (result.state === 'skipped') results.skipped.push({ name, reason: result.note ?? 'no reason given' });
        else {
          results.failed.push(name);
          broken++;
        }
      }
      // Errors outside tests: a file that does not load, a hook that throws.
      if (broken === 0 && module.state() === 'failed') results.failed.push(file);
    }
    for (const error of unhandled) results.failed.push(`unhandled error: ${error.message?.split('\n')[0] ?? error}`);
    const target = process.env.FT_TEST_RESULTS;
    if (target !== undefined) writeFileSync(target, JSON.stringify(results));
  }
}
