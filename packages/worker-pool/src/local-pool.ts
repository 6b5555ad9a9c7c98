/** @file A pool of worker processes on this machine. */
import type { PolicyWorker, WorkerInit } from './types.ts';

export interface LocalPoolOptions {
  /** Absolute path of the worker's entry module (policy-worker's `workerEntry`). */
  entry: string;
  init: WorkerInit;
  /** Number of worker processes; 1 by default. */
  workers?: number;
  /** Where the workers' stdout and stderr are appended: `worker-0.log` … Absent: only the last lines are kept in memory. */
  logDirectory?: string;
  env?: NodeJS.ProcessEnv;
}

export function createLocalPool(_options: LocalPoolOptions): Promise<PolicyWorker> {
  throw new Error('not yet');
}
