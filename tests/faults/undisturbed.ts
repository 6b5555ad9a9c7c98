/** @file The run that nothing disturbs, made once for all fault tests. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { runCommand } from '../e2e/processes.ts';
import { trainWords } from './training-run.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Run folder of the undisturbed run. */
    undisturbed: string;
  }
}

export default async function setup(project: TestProject): Promise<() => void> {
  const folder = mkdtempSync(join(tmpdir(), 'ft-undisturbed-'));
  const dir = join(folder, 'run');
  const { code, lines } = await runCommand(trainWords(dir));
  if (code !== 0) throw new Error(`the undisturbed run ended with ${code}:\n${lines.slice(-20).join('\n')}`);
  project.provide('undisturbed', dir);
  return () => rmSync(folder, { recursive: true, force: true });
}
