/**
 * @file Entry point of a worker process. This thread moves frames and answers `health`; the engine runs in a thread of its own,
 * since a model run blocks its thread.
 */
import { SHARE_ENV, Worker } from 'node:worker_threads';
import { encodeFrame, type Frame, type Health, type Request, serveStdin, toWire } from '@frame-thinker/worker-pool';
import type { ThreadMessage } from './thread.ts';

const started = performance.now();
/** Calls that the thread has, in order: the first is being run. */
const calls = new Map<number, { method: string; since: number }>();

// `--import tsx` does not reach threads on every Node that is supported, so the thread registers it itself.
const [tsx, module] = [import.meta.resolve('tsx/esm/api'), new URL('./thread.ts', import.meta.url).href];
const thread = new Worker(
  `import(${JSON.stringify(tsx)}).then((tsx) => (tsx.register(), import(${JSON.stringify(module)})))`,
  {
    eval: true,
    execArgv: [],
    // What an engine sets for its native library must reach the process.
    env: SHARE_ENV,
  },
);
const server = serveStdin(serve, () => {
  thread.removeAllListeners('exit');
  return thread.terminate();
});
function serve({ call }: Frame<Request>, body: Uint8Array): void {
  if (call.method === 'health') {
    server.write(encodeFrame({ v: 1, id: call.id, ms: 0, result: toWire(health()) }));
    return;
  }
  calls.set(call.id, { method: call.method, since: performance.now() });
  thread.postMessage(body, [body.buffer as ArrayBuffer]);
}
thread.on('message', ({ id, bytes, last }: ThreadMessage) => {
  server.write([bytes]);
  if (!last) return;
  calls.delete(id);
  // The next call begins now.
  const next = calls.values().next().value;
  if (next) next.since = performance.now();
});
thread.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
thread.on('exit', (code) => process.exit(code));

function health(): Health {
  const call = calls.values().next().value;
  return {
    pid: process.pid,
    rssBytes: process.memoryUsage.rss(),
    upMs: Math.round(performance.now() - started),
    ...(call ? { busy: call.method, busyMs: Math.round(performance.now() - call.since) } : {}),
  };
}
