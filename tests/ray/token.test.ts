/** @file A cluster that asks for a token. It needs a cluster of its own, beside the one of the other tests. */
import { connectRay, pythonSource, RayConnectionError } from '@frame-thinker/ray-client';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { type Cluster, startCluster } from './cluster.ts';

const ray = inject('ray');
beforeEach((context) => {
  if ('missing' in ray) context.skip(ray.missing);
});
const TOKEN = 'a'.repeat(64);

describe('ray-client on a cluster with RAY_AUTH_MODE=token', () => {
  let cluster: Cluster | undefined;
  beforeAll(async () => {
    if ('missing' in ray) return;
    const env = { RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN: TOKEN };
    cluster = await startCluster([{ cpus: 1 }], { env, place: 1 });
  });
  afterAll(() => cluster?.stop());

  it('gets in with the token only', async () => {
    const { address } = cluster!;
    await expect(connectRay({ address, connectMs: 1000 })).rejects.toThrow(RayConnectionError);
    await expect(connectRay({ address, token: 'b'.repeat(64) })).rejects.toThrow(/give the cluster's token/);
    const client = await connectRay({ address, token: TOKEN });
    const add = await client.function(pythonSource('def add(a, b): return a + b', 'add'));
    expect(await client.get(await add.remote([await client.put(40), 2]))).toBe(42);
    await client.close();
  });
});
