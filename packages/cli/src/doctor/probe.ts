/** @file Probes in child processes: what crashes or hangs there can't take the doctor with it. */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Output of a program, or why there is none. */
export type Probe = { ok: true; text: string } | { ok: false; why: string };

/** Runs a program for at most `timeout` ms. */
export function probe(file: string, args: readonly string[], timeout = 20_000): Promise<Probe> {
  return new Promise((resolve) => {
    execFile(file, [...args], { timeout }, (error, stdout, stderr) => {
      if (!error) resolve({ ok: true, text: (stdout || stderr).trim() });
      else if (error.code === 'ENOENT') resolve({ ok: false, why: `${file} is not there` });
      else if (error.killed) resolve({ ok: false, why: `no answer within ${timeout / 1000} s` });
      else {
        const lines = stderr.trim().split('\n');
        const told = lines.find((line) => /error/i.test(line)) ?? lines.at(-1) ?? '';
        resolve({ ok: false, why: (told || error.message).trim().slice(0, 200) });
      }
    });
  });
}

/** Path of a dependency of one of our packages, which need not be ours too. */
export function resolveFrom(ownPackage: string, dependency: string): string | undefined {
  try {
    return createRequire(fileURLToPath(import.meta.resolve(ownPackage))).resolve(dependency);
  } catch {
    return undefined;
  }
}

/** Loads a module in a child Node process and evaluates an expression of it (`m`). */
export function probeModule(path: string, expression: string): Promise<Probe> {
  const code = `import(${JSON.stringify(path)}).then(async (m) => console.log(await (${expression})), (e) => { console.error('Error: ' + e.message); process.exit(1); })`;
  return probe(process.execPath, ['--input-type=module', '-e', code]);
}
