/**
 * @file Workers as child processes of this machine. Sums and states are files in shared memory (scratch-folder.ts), which the workers
 * write, read and add: none of it passes through the controller.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { InvariantError } from '@frame-thinker/core';
import { createPool, type PoolOptions } from './pool.ts';
import { RemoteWorker } from './remote-worker.ts';
import { ScratchFolder } from './scratch-folder.ts';
import type { PoolTransport, WorkerConnection } from './transport.ts';
import type { CriticWorker, PolicyWorker, WorkerInit } from './types.ts';
import { WorkerProcess } from './worker-process.ts';

export interface LocalTransportOptions {
  /** Absolute path of the worker's entry module (policy-worker's `workerEntry`). */
  entry: string;
  /** The workers' stdout and stderr are appended here as `worker-0.log` …; absent: only the last lines are kept. */
  logDirectory?: string;
  env?: NodeJS.ProcessEnv;
  /** Told once, where there is too little shared memory. */
  warn?: ((line: string) => void) | undefined;
}

export class LocalTransport implements PoolTransport {
  readonly #options: LocalTransportOptions;
  readonly #scratch: ScratchFolder;
  /** Files with each worker's sums. */
  #gradients: string[] | undefined;
  #state: { path: string; step: number } | undefined;
  #states = 0;
  readonly sharesFiles = true;

  constructor(options: LocalTransportOptions) {
    this.#options = options;
    this.#scratch = new ScratchFolder({ warn: options.warn });
  }

  /** Sums of all workers in float64; two states (weights, two moments), for a moment, in float32. */
  expect({ parameters, workers }: { parameters: number; workers: number }): void {
    this.#scratch.expect(parameters * (8 * workers + 2 * 12));
  }

  start(rank: number): WorkerProcess {
    const { entry, logDirectory, env } = this.#options;
    return new WorkerProcess({
      ...{ name: `worker ${rank}`, entry },
      ...(logDirectory === undefined ? {} : { logFile: join(logDirectory, `worker-${rank}.log`) }),
      env: { ...env, ...this.#scratch.environment },
    });
  }

  async collectGradients(workers: readonly WorkerConnection[]): Promise<void> {
    const parts = workers.map((_, i) => this.#scratch.file(`gradients-${i}`));
    await Promise.all(workers.map((worker, i) => new RemoteWorker(worker).writeGradients(parts[i]!)));
    this.#gradients = parts;
  }

  spreadGradients(worker: WorkerConnection): Promise<void> {
    if (!this.#gradients) throw new InvariantError('no gradients were collected');
    return new RemoteWorker(worker).readGradients(this.#gradients);
  }

  async keepState(worker: WorkerConnection): Promise<void> {
    const path = this.#scratch.file(`state-${++this.#states}`);
    mkdirSync(path);
    const step = await new RemoteWorker(worker).save(path, { rank: 0, worldSize: 1 });
    const before = this.#state;
    this.#state = { path, step };
    if (before) rmSync(before.path, { recursive: true, force: true });
  }

  restoreState(worker: WorkerConnection): Promise<void> {
    if (!this.#state) throw new InvariantError('no state was kept');
    return new RemoteWorker(worker).load(this.#state.path, { step: this.#state.step });
  }

  async close(): Promise<void> {
    this.#scratch.remove();
  }
}

export interface LocalPoolOptions extends LocalTransportOptions, Pick<PoolOptions, 'watchdog'> {
  init: WorkerInit;
  /** Worker processes; 1 by default. */
  workers?: number;
}

/**
 * Starts the workers and loads the policy (or the critic: init.role) into each; what the other role does is refused by the workers.
 * @throws WorkerError when one can't
 */
export async function createLocalPool(options: LocalPoolOptions): Promise<PolicyWorker & CriticWorker> {
  const { init, workers = 1, watchdog, ...rest } = options;
  return createPool({
    transport: new LocalTransport({ ...rest, warn: watchdog?.warn }),
    init,
    workers,
    ...(watchdog ? { watchdog } : {}),
  });
}
