/** @file Objects that die with their node. It needs a cluster of its own, beside the one of the other tests. */
import { connectRay, pythonSource, type RayClient, RayObjectLostError, RayTaskError } from '@frame-thinker/ray-client';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { type Cluster, startCluster } from './cluster.ts';

const ray = inject('ray');
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});

const SOURCE = `
import os, ray, signal
class Maker:
    def make(self): return bytes(5_000_000)
    def here(self): return int(os.environ['RAY_RAYLET_PID'])
class Worker:
    async def count(self, *parts): return len(parts)
    async def read(self, parts): return len(await parts[0])
`;

describe('ray-client on a cluster that loses a node', () => {
  let cluster: Cluster | undefined;
  let client: RayClient | undefined;
  beforeAll(async () => {
    if ('missing' in ray) return;
    const nodes = [
      { cpus: 1, resources: { head: 1 } },
      { cpus: 1, resources: { other: 1 } },
    ];
    cluster = await startCluster(nodes, { place: 2 });
    client = await connectRay({ address: cluster.address });
  });
  afterAll(async () => {
    await client?.close();
    await cluster?.stop();
  });

  it('names an object that went with it, also where it is the argument of a task', async () => {
    const session = client!;
    const Worker = await session.actorClass(pythonSource(SOURCE, 'Worker'));
    const near = await Worker.create([], { resources: { head: 1 } });
    const far = await (await session.actorClass(pythonSource(SOURCE, 'Maker'))).create([], { resources: { other: 1 } });
    const object = await far.remote('make');
    // The object stays where it was made until somebody asks for it; the actor's calls follow each other.
    process.kill(Number(await far.call('here')), 'SIGKILL');
    const alive = async (): Promise<number> => (await session.nodes()).filter(({ Alive }) => Alive).length;
    await expect.poll(alive, { timeout: 90_000 }).toBe(1);
    const message = new RegExp(`^the object ${object.hex} is lost \\(Object\\w+Error\\)`);
    for (const asked of [() => session.get(object), () => near.call('count', [object])]) {
      const error = await asked().catch((error: unknown) => error);
      expect(error).toBeInstanceOf(RayObjectLostError);
      expect((error as Error).message).toMatch(message);
    }
    // Where a function asks for it itself, it is the function that fails.
    const within = await near.call('read', [[object]]).catch((error: unknown) => error);
    expect(within).toBeInstanceOf(RayTaskError);
    expect((within as Error).message).toMatch(message);
    expect(await near.call('count', [1])).toBe(1);
  });
});
