/** @file A proxy whose fork for the session's process fails: the session is tried again, under another id. */
import { afterEach, describe, expect, it } from 'vitest';
import { connectRay } from './connect.ts';
import { RAY_VERSION } from './ray_client_pb.ts';
import { type FakeServer, startFakeServer } from './testing/fake-server.ts';

const FORK_FAILED =
  'RuntimeError: Starting Ray client server failed. See ray_client_server_23003.err for detailed logs.';

let server: FakeServer | undefined;
afterEach(() => server?.stop());

/** Answers a session's init with each of `inits` in turn ('' is success). Gives its address, and the ids that came. */
async function proxy(inits: readonly string[]): Promise<FakeServer> {
  server = await startFakeServer({ init: (session) => inits[session] ?? '' });
  return server;
}

describe("a session whose process could not be started by Ray's proxy", () => {
  it('is tried again as another client, and says so', async () => {
    const { address, clients } = await proxy([FORK_FAILED, "psutil.ZombieProcess: PID still exists but it's a zombie"]);
    const warnings: string[] = [];
    const client = await connectRay({ address, onWarning: (message) => warnings.push(message) });
    expect(client.info.rayVersion).toBe(RAY_VERSION);
    await client.close();
    expect(new Set(clients).size).toBe(3);
    expect(warnings).toEqual([
      "Ray could not start the session's process; try 2 of 5",
      "Ray could not start the session's process; try 3 of 5",
    ]);
  });

  it('is given up after five tries, with what Ray said', async () => {
    const { address, clients } = await proxy(Array(9).fill(FORK_FAILED));
    await expect(connectRay({ address })).rejects.toThrow(/began no session:\n.*Starting Ray client server failed/);
    expect(clients).toHaveLength(5);
  });

  it('is not tried again when the session is refused for another reason', async () => {
    const { address, clients } = await proxy(['ModuleNotFoundError: no module named x']);
    await expect(connectRay({ address })).rejects.toThrow(/no module named x/);
    expect(clients).toHaveLength(1);
  });
});
