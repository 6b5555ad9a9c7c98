import { spawn, spawnSync } from 'node:child_process';
import { pbkdf2 } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bytesOf, tensorOf } from '@frame-thinker/checkpoint';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { WorkerError } from './errors.ts';
import { encodeFrame } from './frames.ts';
import { WorkerProcess } from './worker-process.ts';

const entry = fileURLToPath(new URL('./echo-worker.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-worker-'));
const started: WorkerProcess[] = [];
const start = (logFile?: string): WorkerProcess => {
  started.push(new WorkerProcess({ name: 'worker 0', entry, ...(logFile ? { logFile } : {}) }));
  return started.at(-1)!;
};
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(async () => {
  await Promise.all(started.splice(0).map((worker) => worker.close()));
});
const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]![0] !== 'Z';
  } catch {
    return false;
  }
};

describe('a worker process', () => {
  it('answers, streams, fails and goes on; and keeps its log when it dies', async () => {
    const logFile = join(folder, 'worker.log');
    const worker = start(logFile);
    const big = new Float32Array(3_000_000).fill(0.5);
    const [small, large] = await Promise.all([
      worker.call('echo', { a: [1, 'é'] }),
      worker.call('echo', {}, [['big', tensorOf(big, [1000, 3000])]]),
    ]);
    expect(small.result).toEqual({ a: [1, 'é'] });
    expect(Buffer.compare(bytesOf(large.tensors.get('big')!.data), bytesOf(big))).toBe(0);

    const parts: unknown[] = [];
    const counted = await worker.call('count', { to: 3 }, [['x', tensorOf(new Uint8Array(5))]], (part) =>
      parts.push(part),
    );
    expect(parts).toEqual([{ i: 0 }, { i: 1 }, { i: 2 }]);
    expect(counted.result).toEqual({ bytes: 5 });

    const failure = await worker.call('fail').catch((error: unknown) => error);
    expect(failure).toMatchObject({ name: 'WorkerError', type: 'RangeError', method: 'fail' });
    expect((failure as WorkerError).trace).toContain('echo-worker');
    expect((await worker.call('echo')).result).toEqual({});

    const calls = [worker.call('crash'), worker.call('echo')].map((call) => call.catch((error: unknown) => error));
    for (const error of await Promise.all(calls)) {
      expect(error).toBeInstanceOf(WorkerError);
      expect(String(error)).toMatch(/worker 0 died \(exit code 7\) in .*log: .*the last words/s);
    }
    await expect(worker.call('echo')).rejects.toThrow(/exit code 7/);
    await worker.close();
    expect(readFileSync(logFile, 'utf8')).toContain('the last words');
  });

  it('has its whole log in the file once it is closed, also when the disk is slow', async () => {
    const logFile = join(folder, 'slow.log');
    const worker = start(logFile);
    await worker.call('echo');
    // Keeps every thread busy that files are written by.
    for (let i = 0; i < 16; i++) pbkdf2('word', 'salt', 200_000, 64, 'sha512', () => {});
    await expect(worker.call('crash')).rejects.toThrow(/exit code 7/);
    await worker.close();
    expect(readFileSync(logFile, 'utf8')).toContain('the last words');
  });

  it('that answers garbage is ended, with the reason', async () => {
    await expect(start().call('garbage')).rejects.toThrow(/frame that cannot be read: a frame of \d+ bytes is named/);
  });

  it('ignores interrupts and does not outlive a killed parent', async () => {
    const script = `
      import { WorkerProcess } from ${JSON.stringify(new URL('./worker-process.ts', import.meta.url).href)};
      const worker = new WorkerProcess({ name: 'w', entry: ${JSON.stringify(entry)} });
      await worker.call('echo');
      process.kill(worker.pid, 'SIGINT');
      process.kill(worker.pid, 'SIGTERM');
      await worker.call('echo');
      console.log(worker.pid);
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script]);
    const text = await new Promise<string>((resolve, reject) => {
      parent.stdout.once('data', (data: Buffer) => resolve(String(data)));
      parent.once('exit', (code) => reject(new Error(`exit ${code}: ${parent.stderr.read()}`)));
    });
    const pid = Number(text);
    expect(alive(pid)).toBe(true);
    parent.removeAllListeners('exit');
    parent.kill('SIGKILL');
    for (let i = 0; i < 100 && alive(pid); i++) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(alive(pid)).toBe(false);
  });

  it('ends with its input while native code holds a thread, and does not survive the end of a process that it is stopped in', async () => {
    const moduleOf = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
    const busy = join(folder, 'busy.ts');
    // A child that is waited for is native code, which nothing interrupts.
    const blocking = "require('node:child_process').execSync('sleep 30')";
    writeFileSync(
      busy,
      `import { Worker } from 'node:worker_threads';
      import { encodeFrame } from ${moduleOf('./frames.ts')};
      import { serveStdin } from ${moduleOf('./worker-server.ts')};
      const thread = new Worker(${JSON.stringify(blocking)}, { eval: true });
      const server = serveStdin(({ call }) => server.write(encodeFrame({ v: 1, id: call.id, ms: 0, result: {} })), () => thread.terminate());`,
    );
    const command = [process.execPath, '--import', import.meta.resolve('tsx'), busy].map((word) => `'${word}'`);
    const child = spawn('/bin/sh', ['-c', `exec ${command.join(' ')} 3>&1`], { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
    const asked = encodeFrame({ v: 1, id: 1, method: 'x', params: {} });
    const answered = new Promise((resolve) => child.stdout!.once('data', resolve));
    child.stdin!.write(Buffer.concat(asked));
    await answered;
    await new Promise((resolve) => setTimeout(resolve, 300));
    child.stdin!.end();
    // Not by itself after 30 s.
    expect(await ended).toBe('SIGKILL');

    const script = `
      import { WorkerProcess } from ${moduleOf('./worker-process.ts')};
      const worker = new WorkerProcess({ name: 'w', entry: ${JSON.stringify(entry)} });
      await worker.call('echo');
      process.kill(worker.pid, 'SIGSTOP');
      console.log(worker.pid);
      process.exit(3);`;
    const ran = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script]);
    expect(ran.status, String(ran.stderr)).toBe(3);
    await expect.poll(() => alive(Number(ran.stdout)), { timeout: 10_000 }).toBe(false);
  });
});
