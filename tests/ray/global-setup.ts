/** @file One cluster of two nodes for all tests of the project. */
import type { TestProject } from 'vitest/node';
import { missingForRay, startCluster } from './cluster.ts';

declare module 'vitest' {
  interface ProvidedContext {
    ray: { address: string; folder: string } | { missing: string };
  }
}

export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const missing = missingForRay();
  if (missing) {
    project.provide('ray', { missing });
    return undefined;
  }
  const cluster = await startCluster([
    { cpus: 2, resources: { head: 4 } },
    { cpus: 2, resources: { other: 4 } },
  ]);
  project.provide('ray', { address: cluster.address, folder: cluster.folder });
  return cluster.stop;
}
