/** @file An environment that takes its worker with it: it says why on stderr, and the process is killed. */
import { writeSync } from 'node:fs';
import type { Environment } from '@frame-thinker/core';

export default function dyingEnvironment(): Environment {
  // At once, past the thread's own stderr, which goes through the main thread.
  writeSync(2, 'the camera is gone\n');
  process.kill(process.pid, 'SIGKILL');
  throw new Error('unreachable');
}
