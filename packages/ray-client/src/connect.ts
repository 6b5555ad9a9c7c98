/** @file Opens a session; where Ray could not start its process, another one. */
import { RayClient } from './client.ts';
import { RayConnectionError } from './errors.ts';
import { type ConnectOptions, Session } from './session.ts';

/**
 * Ray's proxy starts a process for every session by a fork that gRPC's threads can break (ray-project/ray#60316): it ends before it
 * has run anything, so that the session can be tried again, as another client.
 */
const SESSION_TRIES = 5;
const SESSION_PROCESS_FAILED = /Starting Ray client server failed|psutil\.(ZombieProcess|NoSuchProcess)/;

/** Opens a session. @throws RayConnectionError, RayVersionError, RayRuntimeEnvError */
export async function connectRay(options: ConnectOptions): Promise<RayClient> {
  for (let attempt = 1; ; attempt++) {
    const session = new Session(options);
    try {
      await session.open();
      return new RayClient(session);
    } catch (error) {
      await session.close();
      const failed = error instanceof RayConnectionError && SESSION_PROCESS_FAILED.test(error.message);
      if (!failed || attempt === SESSION_TRIES) throw error;
      options.onWarning?.(`Ray could not start the session's process; try ${attempt + 1} of ${SESSION_TRIES}`);
    }
  }
}
