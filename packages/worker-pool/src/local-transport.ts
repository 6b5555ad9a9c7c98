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
import type { PoolTransport, Shard, WorkerConnection } from './transport.ts';
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

interface KeptState {
  path: string;
  step: number;
  /** Made here, and removed here. */
  own: boolean;
}

export class LocalTransport implements PoolTransport {
  readonly #options: LocalTransportOptions;
  readonly #scratch: ScratchFolder;
  /** Files of the total's parts. */
  #totals: string[] | undefined;
  #state: KeptState | undefined;
  #states = 0;

  constructor(options: LocalTransportOptions) {
    this.#options = options;
    this.#scratch = new ScratchFolder({ warn: options.warn });
  }

  /** Sums of all workers and their total in float64; two states (weights, two moments), for a moment, in float32. */
  expect({ parameters, workers }: { parameters: number; workers: number }): void {
    this.#scratch.expect(parameters * (8 * (workers + 1) + 2 * 12));
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
    const remotes = workers.map((worker) => new RemoteWorker(worker));
    const partOf = (worker: number, part: number): string => this.#scratch.file(`gradients-${worker}-${part}`);
    const all = workers.map((_, i) => i);
    await Promise.all(remotes.map((remote, worker) => remote.writeGradients(all.map((part) => partOf(worker, part)))));
    const totals = all.map((part) => this.#scratch.file(`total-${part}`));
    await Promise.all(
      remotes.map((remote, part) =>
        remote.addGradients(
          all.map((worker) => partOf(worker, part)),
          totals[part]!,
        ),
      ),
    );
    this.#totals = totals;
  }

  spreadGradients(worker: WorkerConnection): Promise<void> {
    if (!this.#totals) throw new InvariantError('no gradients were collected');
    return new RemoteWorker(worker).readGradients(this.#totals);
  }

  save(worker: WorkerConnection, directory: string, shard: Shard): Promise<number> {
    return new RemoteWorker(worker).save(directory, shard);
  }

  async keepState(worker: WorkerConnection): Promise<void> {
    const path = this.#scratch.file(`state-${++this.#states}`);
    mkdirSync(path, { recursive: true });
    const step = await new RemoteWorker(worker).save(path, { rank: 0, worldSize: 1 });
    this.#keep({ path, step, own: true });
  }

  async keepFolder(directory: string, step: number): Promise<void> {
    this.#keep({ path: directory, step, own: false });
  }

  #keep(state: KeptState): void {
    const before = this.#state;
    this.#state = state;
    if (before?.own) rmSync(before.path, { recursive: true, force: true });
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
