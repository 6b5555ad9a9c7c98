/**
 * @file Starts a real Ray cluster for a test, in a network namespace that has only loopback: Ray listens on every interface and
 * runs the code of whoever connects. Ends it by the processes that were started.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const PYTHON = join(import.meta.dirname, '../../.venv/bin/python');
const START_MS = 280_000;
const END_MS = 90_000;

/** Why no cluster can be started here; undefined where one can. */
export function missingForRay(): string | undefined {
  if (Object.keys(networkInterfaces()).join() !== 'lo')
    return 'needs a network namespace with only loopback, which `pnpm test:ray` makes by `unshare --net` where it may';
  if (!existsSync(PYTHON)) return 'needs .venv with Ray (tests/requirements.txt)';
  try {
    execFileSync(PYTHON, ['-c', 'import ray'], { stdio: 'ignore' });
  } catch {
    return 'needs Ray in .venv (tests/requirements.txt)';
  }
  return undefined;
}

export interface NodeOptions {
  cpus: number;
  resources?: Record<string, number>;
  /** Bytes of its object store; beyond it objects go to the disk. Default 150 MiB. */
  objectStore?: number;
}

export interface Cluster {
  /** Of the Ray Client server. */
  address: string;
  /** Of its own: `processesOf` finds its processes by it. */
  folder: string;
  stop(): Promise<void>;
}

/** What a cluster started, down to the programs of its actors: each has the cluster's folder in its environment. */
export function processesOf(folder: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return pid > 0 && readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`RAY_TMPDIR=${folder}`);
      } catch {
        return false; // It ended, or is another user's.
      }
    });
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export interface ClusterOptions {
  env?: NodeJS.ProcessEnv;
  /** Which cluster of the namespace it is: each has its own ports. Default 0. */
  place?: number;
}

/** Starts a cluster whose first node is its head. @throws when it doesn't come up */
export async function startCluster(
  nodes: readonly NodeOptions[],
  { env = {}, place = 0 }: ClusterOptions = {},
): Promise<Cluster> {
  const folder = mkdtempSync(join(tmpdir(), 'ray-'));
  const clientPort = 10_001 + place;
  // Ports that a raylet picks for its agents it waits for, but not for long: not on a busy machine.
  const port = (node: number): number => 61_000 + 100 * place + 10 * node;
  const args = nodes.map(({ cpus, resources = {}, objectStore = 150 * 2 ** 20 }, i) => ({
    num_cpus: cpus,
    resources,
    object_store_memory: objectStore,
    metrics_agent_port: port(i),
    runtime_env_agent_port: port(i) + 1,
    metrics_export_port: port(i) + 2,
    dashboard_agent_listen_port: port(i) + 3,
    ...(i === 0 ? { ray_client_server_port: clientPort, include_dashboard: false } : {}),
  }));
  const child = spawn(PYTHON, [join(import.meta.dirname, 'cluster.py'), JSON.stringify(args)], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      RAY_TMPDIR: folder,
      RAY_USAGE_STATS_ENABLED: '0',
      // What else runs on the machine is no reason for Ray to end a worker, or not to start.
      RAY_memory_monitor_refresh_ms: '0',
      RAY_agent_register_timeout_ms: '200000',
      RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S: '200',
      // gRPC's fork handlers break, at times, the process that Ray forks for a session (ray-project/ray#60316).
      GRPC_ENABLE_FORK_SUPPORT: '0',
      ...env,
    },
  });
  let log = '';
  child.stderr.on('data', (text: Buffer) => {
    log = (log + text).slice(-5000);
  });
  try {
    await started(child, () => log);
  } catch (error) {
    child.kill('SIGKILL');
    for (const pid of processesOf(folder)) process.kill(pid, 'SIGKILL');
    throw error;
  }
  return { address: `ray://127.0.0.1:${clientPort}`, folder, stop: () => stop(child, folder) };
}

async function started(child: ChildProcess, log: () => string): Promise<void> {
  const timer = setTimeout(() => child.kill('SIGKILL'), START_MS);
  const ready = await new Promise<boolean>((resolve) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      if (line.startsWith('{')) resolve(true);
    });
    child.on('close', () => resolve(false));
  });
  clearTimeout(timer);
  if (!ready) throw new Error(`Ray did not start:\n${log()}`);
}

async function stop(child: ChildProcess, folder: string): Promise<void> {
  const ended = new Promise((resolve) => child.on('close', resolve));
  child.stdin!.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), END_MS);
  await ended;
  clearTimeout(timer);
  let left = processesOf(folder);
  for (let i = 0; i < 300 && left.length > 0; i++) {
    await sleep(100);
    left = processesOf(folder);
  }
  const lines = left.map((pid) => `${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')}`);
  for (const pid of left) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
  if (lines.length > 0) throw new Error(`processes of Ray were left and had to be killed:\n${lines.join('\n')}`);
}
