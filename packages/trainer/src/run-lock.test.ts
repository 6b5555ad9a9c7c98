import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterAll, expect, it } from 'vitest';
import { lockRun } from './run-lock.ts';

const dir = mkdtempSync(join(tmpdir(), 'run-lock-'));
const file = join(dir, 'trainer.pid');
let other: ChildProcess | undefined;
afterAll(() => {
  other?.kill('SIGKILL');
  rmSync(dir, { recursive: true });
});

it('holds a run folder for one process that lives', async () => {
  const release = lockRun(dir);
  expect(() => lockRun(dir)).toThrow(InputError);
  expect(() => lockRun(dir)).toThrow(`${dir}: process ${process.pid} trains in this folder`);
  release();
  expect(existsSync(file)).toBe(false);

  const code = `import { lockRun } from './packages/trainer/src/run-lock.ts'; lockRun(${JSON.stringify(dir)}); console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
    cwd: join(import.meta.dirname, '../../..'),
  });
  other = child;
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (status) => reject(new Error(`ended with ${status}`)));
  });
  expect(() => lockRun(dir)).toThrow(`process ${child.pid} trains in this folder`);
  child.removeAllListeners('exit');
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
  lockRun(dir)();
});

it('is not held by an empty file', () => {
  writeFileSync(file, '');
  lockRun(dir)();
  expect(existsSync(file)).toBe(false);
});

it.skipIf(process.platform !== 'linux')('is not held by a process that has the pid of one that is gone', () => {
  writeFileSync(file, `${process.ppid} 1`);
  const release = lockRun(dir);
  expect(readFileSync(file, 'utf8')).toMatch(new RegExp(`^${process.pid} \\d+$`));
  release();
});
