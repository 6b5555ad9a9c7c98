/** @file examples/agent/start_ray.sh: a cluster that wants the token it made, and ends when it is told to. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { connectRay, pythonSource, type RayClient } from '@frame-thinker/ray-client';
import { afterAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { root } from '../e2e/processes.ts';
import { PYTHON, processesOf } from './cluster.ts';

const ray = inject('ray');
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});
const folder = mkdtempSync(join(tmpdir(), 'ray-'));
const script = join(root, 'examples/agent/start_ray.sh');
const run = (words: readonly string[]): ChildProcess =>
  spawn(script, words, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      ...{ HOME: folder, RAY_TMPDIR: folder, PATH: `${dirname(PYTHON)}:${process.env.PATH}` },
      ...{ PORT: '6399', CLIENT_PORT: '10000', RAY_memory_monitor_refresh_ms: '0' },
    },
  });
afterAll(() => {
  for (const pid of processesOf(folder)) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe('start_ray.sh', () => {
  it('starts a head that wants its token, and ends all of it', async () => {
    const small = ['--num-cpus', '1', '--object-store-memory', String(150 * 2 ** 20)];
    // The other cluster of this network has ports of its own.
    const head = run(['head', ...small, '--min-worker-port', '0', '--max-worker-port', '0']);
    const ended = new Promise((resolve) => head.on('close', resolve));
    let said = '';
    for (const stream of [head.stdout!, head.stderr!])
      stream.on('data', (text: Buffer) => {
        said += text;
      });
    await expect
      .poll(() => (head.exitCode === null ? said : `ended: ${said}`), { timeout: 120_000 })
      .toMatch(/started/);
    expect(said).toMatch(/Ray runtime started/);
    expect(said).toContain('where you train: export RAY_AUTH_MODE=token');
    const file = join(folder, '.ray/auth_token');
    const token = readFileSync(file, 'utf8');
    expect(token).toMatch(/^[0-9a-f]{64}$/);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const address = 'ray://127.0.0.1:10000';
    let client: RayClient | undefined;
    try {
      client = await connectRay({ address, token });
      const add = await client.function(pythonSource('def add(a, b): return a + b', 'add'));
      expect(await client.get(await add.remote([40, 2]))).toBe(42);
    } finally {
      await client?.close();
    }
    await expect(connectRay({ address, token: 'b'.repeat(64) })).rejects.toThrow(/give the cluster's token/);
    head.kill('SIGTERM');
    await ended;
    await expect.poll(() => processesOf(folder), { timeout: 30_000 }).toEqual([]);
  });

  it('says how it is used', async () => {
    for (const words of [[], ['worker'], ['other']]) {
      const wrong = run(words);
      let said = '';
      wrong.stderr!.on('data', (text: Buffer) => {
        said += text;
      });
      expect(await new Promise((resolve) => wrong.on('close', resolve))).toBe(2);
      expect(said).toMatch(/start_ray\.sh head/);
    }
  });
});
