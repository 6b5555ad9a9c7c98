/** @file Workers as child processes of this machine. Sums and states pass through the controller. */
import { join } from 'node:path';
import { InvariantError } from '@frame-thinker/core';
import { createPool, type PoolOptions } from './pool.ts';
import { RemoteWorker } from './remote-worker.ts';
import type { PoolTransport, WorkerConnection } from './transport.ts';
import type { CriticWorker, PolicyWorker, WeightsState, WorkerInit } from './types.ts';
import { WorkerProcess } from './worker-process.ts';

export interface LocalTransportOptions {
  /** Absolute path of the worker's entry module (policy-worker's `workerEntry`). */
  entry: string;
  /** The workers' stdout and stderr are appended here as `worker-0.log` …; absent: only the last lines are kept. */
  logDirectory?: string;
  env?: NodeJS.ProcessEnv;
}

export class LocalTransport implements PoolTransport {
  readonly #options: LocalTransportOptions;
  #gradients: Float64Array | undefined;
  #state: WeightsState | undefined;

  constructor(options: LocalTransportOptions) {
    this.#options = options;
  }

  start(rank: number): WorkerProcess {
    const { entry, logDirectory, env } = this.#options;
    return new WorkerProcess({
      ...{ name: `worker ${rank}`, entry },
      ...(logDirectory === undefined ? {} : { logFile: join(logDirectory, `worker-${rank}.log`) }),
      ...(env === undefined ? {} : { env }),
    });
  }

  async collectGradients(workers: readonly WorkerConnection[]): Promise<void> {
    const [sum, ...others] = await Promise.all(workers.map((worker) => new RemoteWorker(worker).gradientsOut()));
    for (const part of others) for (let i = 0; i < sum!.length; i++) sum![i]! += part[i]!;
    this.#gradients = sum;
  }

  spreadGradients(worker: WorkerConnection): Promise<void> {
    if (!this.#gradients) throw new InvariantError('no gradients were collected');
    return new RemoteWorker(worker).gradientsIn(this.#gradients);
  }

  async keepState(worker: WorkerConnection): Promise<void> {
    this.#state = await new RemoteWorker(worker).weightsOut();
  }

  restoreState(worker: WorkerConnection): Promise<void> {
    if (!this.#state) throw new InvariantError('no state was kept');
    return new RemoteWorker(worker).weightsIn(this.#state);
  }

  async close(): Promise<void> {
    this.#gradients = undefined;
    this.#state = undefined;
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
  return createPool({ transport: new LocalTransport(rest), init, workers, ...(watchdog ? { watchdog } : {}) });
}
