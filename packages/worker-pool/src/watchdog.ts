/** @file Names a worker from which nothing is heard, with the call that it is in, and ends it in the end. */
import type { WorkerConnection } from './transport.ts';

/** Told of calls that nothing was heard of for `quietMs`; after `hungMs` their worker is ended, as if it had died. */
export interface Watchdog {
  quietMs: number;
  hungMs: number;
  warn(message: string): void;
}

/**
 * One look at all workers, every `quietMs`. A worker hangs when it was quiet at so many looks as `hungMs` has: while this process is
 * stopped itself, nobody looks.
 * @param looks by worker, how often it was quiet without a break
 */
export function watch(
  workers: readonly WorkerConnection[],
  { quietMs, hungMs, warn }: Watchdog,
  looks: WeakMap<WorkerConnection, number>,
): void {
  for (const worker of workers) {
    const call = worker.oldestCall();
    if (!call || call.quietMs < quietMs) {
      looks.delete(worker);
      continue;
    }
    const what = `${worker.name} (${worker.where}) has been in ${call.method} for ${Math.round(call.ms / 1000)} s`;
    const times = (looks.get(worker) ?? 0) + 1;
    looks.set(worker, times);
    const hangs = call.quietMs >= hungMs && times * quietMs >= hungMs - quietMs;
    warn(hangs ? `${what}: it is ended` : what);
    if (hangs) void worker.kill('hung');
  }
}
