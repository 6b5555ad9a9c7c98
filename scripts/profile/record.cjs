/**
 * @file Preloaded into every process of a profiled command (`--require`): writes what each thread did, by V8's sampling profiler, and
 * the processor time of the thread and of its process, into the folder named by PROFILE_FOLDER, when the process ends.
 */
const { readFileSync, writeFileSync } = require('node:fs');
const { Session } = require('node:inspector');
const { syncBuiltinESMExports } = require('node:module');
const { join } = require('node:path');
const threads = require('node:worker_threads');

/** Microseconds between samples. */
const INTERVAL = 1000;
/** A thread that does not answer for so long is left out. */
const ANSWER_MS = 10_000;

const session = new Session();
let startedAt = 0;

function start() {
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: INTERVAL });
  session.post('Profiler.start', () => {
    startedAt = Date.now();
  });
}

/** Processor seconds of this thread; clock ticks are hundredths on Linux, the only system where this is there. */
function threadSeconds() {
  const fields = readFileSync('/proc/thread-self/stat', 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function write() {
  session.post('Profiler.stop', (error, { profile } = {}) => {
    if (error) throw error;
    const { user, system } = process.cpuUsage();
    const record = {
      argv: process.argv,
      thread: threads.threadId,
      startedAt,
      threadSeconds: threadSeconds(),
      processSeconds: (user + system) / 1e6,
      profile,
    };
    const name = `${process.pid}-${threads.threadId}.json`;
    writeFileSync(join(process.env.PROFILE_FOLDER, name), JSON.stringify(record));
  });
}

if (threads.isMainThread) {
  start();
  /** A thread is asked through a port, and waited for, since it ends with the process without an event of its own. */
  const asked = [];
  const { Worker } = threads;
  threads.Worker = class extends Worker {
    constructor(code, options = {}) {
      if (!options.eval) {
        super(code, options);
        return;
      }
      const { port1, port2 } = new threads.MessageChannel();
      const written = new Int32Array(new SharedArrayBuffer(4));
      super(`require(${JSON.stringify(__filename)}); ${code}`, {
        ...options,
        workerData: { port: port2, written },
        transferList: [port2],
      });
      port1.unref();
      asked.push({ port: port1, written });
    }
  };
  syncBuiltinESMExports();
  process.on('exit', () => {
    for (const { port, written } of asked) {
      port.postMessage('write');
      Atomics.wait(written, 0, 0, ANSWER_MS);
    }
    write();
  });
} else if (threads.workerData?.written) {
  // Not in the thread that Node itself makes for module hooks.
  start();
  const { port, written } = threads.workerData;
  port.on('message', () => {
    write();
    Atomics.store(written, 0, 1);
    Atomics.notify(written, 0);
  });
  port.unref();
}
