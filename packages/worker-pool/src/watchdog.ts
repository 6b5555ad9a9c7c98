/** @file Names a worker from which nothing is heard, with the call that it is in, and ends it in the end. */
import type { WorkerConnection } from './transport.ts';

/** Told of calls that nothing was heard of for `quietMs`; after `hungMs` their worker is ended, as if it had died. */
export interface Watchdog {
  quietMs: number;
  hungMs: number;
  warn(message: string): void;
}

/** One look at all workers. */
export function watch(workers: readonly WorkerConnection[], { quietMs, hungMs, warn }: Watchdog): void {
  for (const worker of workers) {
    const call = worker.oldestCall();
    if (!call || call.quietMs < quietMs) continue;
    const what = `${worker.name} (${worker.where}) has been in ${call.method} for ${Math.round(call.ms / 1000)} s`;
    const hangs = call.quietMs >= hungMs;
    warn(hangs ? `${what}: it is ended` : what);
    if (hangs) void worker.kill('hung');
  }
}
