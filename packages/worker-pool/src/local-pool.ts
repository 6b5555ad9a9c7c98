/**
 * @file A pool of worker processes on this machine, seen as one PolicyWorker. Each worker holds all weights. Rollout groups and
 * micro-batches go to the next free worker; before an update the workers' float64 gradient sums are added and given to all.
 */
import { join } from 'node:path';
import {
  type AdamWOptions,
  type Cotangents,
  type Group,
  InvariantError,
  type LogProbs,
  RunError,
  type SamplingOptions,
  type Trajectory,
  type UpdateResult,
} from '@frame-thinker/core';
import { RemoteWorker as RemoteConnection } from './remote-worker.ts';
import type {
  Capabilities,
  CriticWorker,
  ForwardOptions,
  Health,
  PolicyWorker,
  ScoreOptions,
  WeightsState,
  WorkerBatch,
  WorkerInit,
} from './types.ts';
import { WorkerProcess } from './worker-process.ts';

class RemoteWorker extends RemoteConnection<WorkerProcess> {}

export interface LocalPoolOptions {
  /** Absolute path of the worker's entry module (policy-worker's `workerEntry`). */
  entry: string;
  init: WorkerInit;
  /** Worker processes; 1 by default. */
  workers?: number;
  /** The workers' stdout and stderr are appended here as `worker-0.log` …; absent: only the last lines are kept. */
  logDirectory?: string;
  env?: NodeJS.ProcessEnv;
  /** Told when a call has run for `after` ms, and again each time that long: which worker hangs, and in what. */
  watchdog?: { after: number; warn(message: string): void };
}

/**
 * Starts the workers and loads the policy (or the critic: init.role) into each; what the other role does is refused by the workers.
 * @throws WorkerError when one can't
 */
export async function createLocalPool(options: LocalPoolOptions): Promise<PolicyWorker & CriticWorker> {
  const workers = Array.from({ length: options.workers ?? 1 }, (_, i) => {
    const logFile = options.logDirectory ? { logFile: join(options.logDirectory, `worker-${i}.log`) } : {};
    const env = options.env ? { env: options.env } : {};
    return new RemoteWorker(new WorkerProcess({ name: `worker ${i}`, entry: options.entry, ...logFile, ...env }));
  });
  try {
    const capabilities = await Promise.all(workers.map((worker) => worker.init(options.init)));
    return new LocalPool(workers, capabilities[0]!, options);
  } catch (error) {
    await Promise.all(workers.map((worker) => worker.process.close()));
    throw error;
  }
}

class LocalPool implements PolicyWorker, CriticWorker {
  readonly capabilities: Capabilities;
  readonly #workers: readonly RemoteWorker[];
  /** Groups that one worker takes at a time: what fills its slots. All of them when there is one worker. */
  readonly #slots: number;
  readonly #free: RemoteWorker[];
  readonly #waiting: ((worker: RemoteWorker) => void)[] = [];
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(workers: readonly RemoteWorker[], capabilities: Capabilities, options: LocalPoolOptions) {
    this.capabilities = capabilities;
    this.#workers = workers;
    this.#slots = options.init.rollout?.slots ?? 1;
    this.#free = [...workers];
    if (options.watchdog) {
      const { after, warn } = options.watchdog;
      this.#timer = setInterval(() => {
        for (const { process } of workers) {
          const call = process.oldestCall();
          if (call && call.ms >= after)
            warn(`${process.name} (pid ${process.pid}) has been in ${call.method} for ${Math.round(call.ms / 1000)} s`);
        }
      }, after);
      this.#timer.unref();
    }
  }

  async #withWorker<T>(use: (worker: RemoteWorker) => Promise<T>): Promise<T> {
    const worker = this.#free.shift() ?? (await new Promise<RemoteWorker>((resolve) => this.#waiting.push(resolve)));
    try {
      return await use(worker);
    } finally {
      const next = this.#waiting.shift();
      if (next) next(worker);
      else this.#free.push(worker);
    }
  }

  forward(batch: WorkerBatch, options: ForwardOptions): Promise<LogProbs> {
    return this.#withWorker((worker) => worker.forward(batch, options));
  }

  backward(batch: WorkerBatch, cotangents: Cotangents, options: ScoreOptions): Promise<LogProbs> {
    return this.#withWorker((worker) => worker.backward(batch, cotangents, options));
  }

  values(batch: WorkerBatch): Promise<Float32Array[]> {
    return this.#withWorker((worker) => worker.values(batch));
  }

  backwardValues(batch: WorkerBatch, dValues: readonly Float32Array[]): Promise<Float32Array[]> {
    return this.#withWorker((worker) => worker.backwardValues(batch, dValues));
  }

  async applyUpdate(options: AdamWOptions): Promise<UpdateResult> {
    if (this.#workers.length > 1) await this.#shareGradients();
    const results = await Promise.all(this.#workers.map((worker) => worker.applyUpdate(options)));
    const first = results[0]!;
    for (const other of results)
      if (!Object.is(other.gradNorm, first.gradNorm) || other.applied !== first.applied)
        throw new InvariantError(
          `the workers applied different updates: gradient norms ${results.map((r) => r.gradNorm).join(', ')}`,
        );
    return first;
  }

  async #shareGradients(): Promise<void> {
    const parts = await Promise.all(this.#workers.map((worker) => worker.gradientsOut()));
    const sum = parts[0]!;
    for (const part of parts.slice(1)) for (let i = 0; i < sum.length; i++) sum[i]! += part[i]!;
    await Promise.all(this.#workers.map((worker) => worker.gradientsIn(sum)));
  }

  async zeroGradients(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.zeroGradients()));
  }

  async *rollout(groups: readonly Group[], sampling: SamplingOptions): AsyncGenerator<Trajectory[]> {
    const queue: Trajectory[][] = [];
    let wake = (): void => {};
    let failure: unknown;
    const jobs = this.#shares(groups).map((share) =>
      this.#withWorker((worker) =>
        worker.rollout(share, sampling, (_, trajectories) => {
          queue.push(trajectories);
          wake();
        }),
      ),
    );
    let running = jobs.length;
    for (const job of jobs)
      job
        .catch((error: unknown) => {
          failure ??= error;
        })
        .finally(() => {
          running--;
          wake();
        });
    let given = 0;
    while (given < groups.length) {
      if (queue.length > 0) {
        given++;
        yield queue.shift()!;
        continue;
      }
      if (failure !== undefined) throw failure;
      if (running === 0)
        throw new RunError(`the workers finished ${given} of ${groups.length} groups and said nothing of the others`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    await Promise.all(jobs);
  }

  /** With one worker everything is one share; with more, shares fill the slots, so that the slowest worker is not left with much. */
  #shares(groups: readonly Group[]): Group[][] {
    if (this.#workers.length === 1) return groups.length > 0 ? [[...groups]] : [];
    const shares: Group[][] = [];
    let rows = Number.POSITIVE_INFINITY;
    for (const group of groups) {
      if (rows + group.n > this.#slots) {
        shares.push([]);
        rows = 0;
      }
      shares.at(-1)!.push(group);
      rows += group.n;
    }
    return shares;
  }

  weightsOut(): Promise<WeightsState> {
    return this.#workers[0]!.weightsOut();
  }

  async weightsIn(state: WeightsState): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.weightsIn(state)));
  }

  exportTo(directory: string): Promise<void> {
    return this.#workers[0]!.exportTo(directory);
  }

  health(): Promise<Health> {
    return this.#workers[0]!.health();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#workers.map((worker) => worker.process.close()));
  }
}
