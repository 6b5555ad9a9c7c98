/** @file A whole node dies: its worker is replaced on another with the same numbers, and what was kept there is told to be lost. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { workerEntry } from '@frame-thinker/policy-worker';
import {
  createLocalPool,
  createPool,
  createRayTransport,
  type RayTransport,
  toWire,
  type WorkerConnection,
} from '@frame-thinker/worker-pool';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { root } from '../e2e/processes.ts';
import { type Cluster, processesOf, startCluster } from './cluster.ts';
import { init, train } from './small-pool.ts';

const ray = inject('ray');
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});

const folder = mkdtempSync(join(tmpdir(), 'frame-thinker-nodes-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
describe('when a node dies as a whole', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    // A session lives on the head, which has no worker here.
    if (!('missing' in ray))
      cluster = await startCluster(
        [0, 4, 4, 4].map((cpus) => ({ cpus })),
        { place: 1 },
      );
  });
  afterAll(() => cluster?.stop());

  const onRay = (): Promise<RayTransport> =>
    createRayTransport({
      ...{ address: cluster.address, entry: workerEntry, node: process.execPath, checkout: root, cwd: root },
      ...{ resources: { numCpus: 2, placement: 'spread' }, logDirectory: folder, startSeconds: 60 },
    });
  const nodeOf = ({ where }: WorkerConnection): string => where.split(' on ')[1]!;
  /** Kills the node's own process, whose child the worker's actor is; all that it started goes with it. */
  function killNodeOf(worker: WorkerConnection): void {
    let pid = Number(/^pid (\d+) /.exec(worker.where)![1]);
    while (!/\/raylet\/raylet\0/.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1'))) {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      pid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    }
    expect(processesOf(cluster.folder)).toContain(pid);
    process.kill(pid, 'SIGKILL');
  }

  it('says that bulk data are lost which it had', async () => {
    const transport = await onRay();
    try {
      const [holder, other] = [0, 1].map((rank) => transport.start(rank));
      for (const worker of [holder!, other!]) await worker.call('init', toWire(init));
      expect(nodeOf(holder!)).not.toBe(nodeOf(other!));
      await transport.keepState(holder!);
      killNodeOf(holder!);
      await holder!.died;
      await expect(transport.restoreState(other!)).rejects.toMatchObject({ type: 'lost' });
      expect((await other!.call('health')).result.pid).toBeGreaterThan(0);
      await other!.close();
    } finally {
      await transport.close();
    }
  });

  it('loses nothing: a pool has the numbers of an undisturbed one', async () => {
    const local = await createLocalPool({ entry: workerEntry, init, workers: 2 });
    const undisturbed = await train(local, { updates: 3 }).finally(() => local.close());
    const transport = await onRay();
    const started: WorkerConnection[] = [];
    const { start } = transport;
    transport.start = (rank) => {
      const worker = start.call(transport, rank);
      started.push(worker);
      return worker;
    };
    const said: string[] = [];
    const watchdog = { quietMs: 60_000, hungMs: 120_000, warn: (line: string) => void said.push(line) };
    const pool = await createPool({ transport, init, workers: 2, watchdog });
    try {
      const disturb = async (): Promise<void> => {
        expect(nodeOf(started[0]!)).not.toBe(nodeOf(started[1]!));
        killNodeOf(started[1]!);
      };
      const disturbed = await train(pool, { updates: 3, disturb });
      expect(disturbed).toEqual(undisturbed);
      expect(started).toHaveLength(3);
      expect(nodeOf(started[2]!)).toBe(nodeOf(started[0]!));
    } finally {
      await pool.close();
    }
    expect(said.join('\n')).toMatch(/^worker 1 .*\n(.*\n)*it is replaced/);
  });
});
