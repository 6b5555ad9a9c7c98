/** @file Starts the real commands as a user would, and waits for what they print. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

export const root = join(import.meta.dirname, '../..');
/** Not import.meta.resolve, which vitest's global setup does not have. */
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

export interface Started {
  child: ChildProcess;
  /** Lines of stdout and stderr so far. */
  lines: string[];
  /** Resolves with the first line that matches, rejects when the process ends without one. */
  line(pattern: RegExp): Promise<string>;
  /** Resolves when the process has ended. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

export interface StartOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** The Node.js to run it with; default the test's own. */
  node?: string;
  /** The checkout whose command is run; default this one. */
  tree?: string;
}

/** Runs `pnpm <args>` without pnpm in between, so that signals reach the command itself. */
export function start(args: readonly string[], options: StartOptions = {}): Started {
  const tree = options.tree ?? root;
  const entry = join(tree, 'packages/cli/src/main.ts');
  const child = spawn(options.node ?? process.execPath, ['--import', tsx, entry, ...args], {
    cwd: options.cwd ?? tree,
    // NODE_PATH, which pnpm sets, would find what another tree is without.
    env: { ...process.env, ...(options.tree === undefined ? {} : { NODE_PATH: '' }), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  const waiting: { pattern: RegExp; resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      for (const { pattern, resolve } of waiting) if (pattern.test(line)) resolve(line);
    });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('close', (code, signal) => {
      for (const { pattern, reject } of waiting)
        reject(
          new Error(
            `${args.join(' ')} ended (${signal ?? code}) before a line matched ${pattern}:\n${lines.slice(-20).join('\n')}`,
          ),
        );
      resolve({ code, signal });
    });
  });
  return {
    child,
    lines,
    ended,
    line: (pattern) => {
      const found = lines.find((line) => pattern.test(line));
      return found === undefined
        ? new Promise((resolve, reject) => {
            waiting.push({ pattern, resolve, reject });
          })
        : Promise.resolve(found);
    },
  };
}

/** Runs a command to its end. */
export async function runCommand(
  args: readonly string[],
  options?: StartOptions,
): Promise<{ code: number | null; lines: string[] }> {
  const started = start(args, options);
  const { code } = await started.ended;
  return { code, lines: started.lines };
}
