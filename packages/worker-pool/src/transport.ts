/**
 * @file How a pool reaches its workers: as child processes of this machine (local-transport.ts), or through another system. The
 * pool schedules, watches, restarts and repeats; a transport starts workers, carries framed calls and moves bulk data.
 */
import type { TensorData } from '@frame-thinker/checkpoint';
import type { JsonObject, Tensors } from './frames.ts';

/** The last frame of a call, after all partial ones. */
export interface Answer {
  result: JsonObject;
  tensors: Tensors;
  /** Milliseconds in the worker. */
  ms: number;
}

/** One started worker process. A worker that died stays dead: the transport starts another. */
export interface WorkerConnection {
  /** Names the worker in messages, e.g. `worker 0`. */
  readonly name: string;
  /** Where it runs, e.g. `pid 4711`. */
  readonly where: string;
  readonly dead: boolean;
  /** Resolves when the worker is dead, however that came. */
  readonly died: Promise<void>;
  /**
   * Sends a request; calls are served in order, `health` at once.
   * @throws WorkerError with the worker's error, of type 'died' when it dies; InputError when the worker said InputError.
   */
  call(
    method: string,
    params?: JsonObject,
    tensors?: Iterable<readonly [string, TensorData]>,
    onPartial?: (partial: JsonObject, tensors: Tensors) => void,
  ): Promise<Answer>;
  /** The call that runs now, if any: since when, and for how long nothing came of it. */
  oldestCall(): { method: string; ms: number; quietMs: number } | undefined;
  /** Ends the process at once; `reason` is what its calls reject with. Resolves when it is gone. */
  kill(reason: string): Promise<void>;
  /** Lets it end by itself, and kills it when it doesn't. */
  close(): Promise<void>;
}

/** A shard of weights and moments, as FSDP2 cuts them. */
export interface Shard {
  rank: number;
  worldSize: number;
}

/**
 * Bulk data stay where the transport keeps them (files, object references). Every method may be
 * called again after a worker of it died; what an earlier try left is replaced.
 */
export interface PoolTransport {
  /** Told before the first bulk data how large they will be. */
  expect?(size: { parameters: number; workers: number }): void;
  /** Starts the worker of this rank, the first one or one in place of a dead one. Failing to start shows as its death. */
  start(rank: number): WorkerConnection;
  /** Keeps the total: the workers' gradient sums added in the order given, a part by each. Their own sums stay as they are. */
  collectGradients(workers: readonly WorkerConnection[]): Promise<void>;
  /** Replaces a worker's gradient sums by the total, the same for every worker to the last bit. */
  spreadGradients(worker: WorkerConnection): Promise<void>;
  /** Keeps a worker's weights and moments outside of it; what was kept before is replaced in one go. */
  keepState(worker: WorkerConnection): Promise<void>;
  /** Keeps the weights and moments of a checkpoint's actor folder instead, of any world size. */
  keepFolder(directory: string, step: number): Promise<void>;
  /** Gives a worker the weights and moments that were kept. */
  restoreState(worker: WorkerConnection): Promise<void>;
  /** Has a worker write its shard of a checkpoint's actor folder, which exists. Resolves to AdamW's step count. */
  save(worker: WorkerConnection, directory: string, shard: Shard): Promise<number>;
  /** Removes all bulk data. The workers are closed before. */
  close(): Promise<void>;
}
