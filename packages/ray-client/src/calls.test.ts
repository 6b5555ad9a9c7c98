/** @file Calls across lost connections, and failures that are not the network's. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { parseAddress } from './address.ts';
import { Channel } from './channel.ts';
import { connectRay } from './connect.ts';
import { DataStream } from './data-stream.ts';
import { RayConnectionError, RayPythonError } from './errors.ts';
import type { LogEntry } from './log-stream.ts';
import { type FakeServer, startFakeServer } from './testing/fake-server.ts';

let server: FakeServer | undefined;
afterEach(() => server?.stop());

describe('a call', () => {
  it('that lasted longer than the grace is sent again after a loss, for the time that is left', async () => {
    const timeouts: number[] = [];
    server = await startFakeServer({
      wait: ({ timeout }) => {
        timeouts.push(timeout);
        return timeouts.length === 1 ? new Promise(() => {}) : Promise.resolve({ valid: true });
      },
    });
    const graceSeconds = 1;
    const client = await connectRay({ address: server.address, graceSeconds });
    const waiting = client.wait([await client.put(1)], { timeoutMs: 60_000 });
    waiting.catch(() => {});
    await expect.poll(() => timeouts.length).toBe(1);
    await sleep(1000 * graceSeconds + 100);
    server.cut();
    await expect(waiting).resolves.toEqual({ ready: [], rest: [] });
    const [first, second] = timeouts as [number, number];
    expect(first - second).toBeGreaterThan(graceSeconds);
    await client.close();
  });

  it('ends when the connection stays lost', async () => {
    server = await startFakeServer({ wait: () => new Promise(() => {}) });
    const client = await connectRay({ address: server.address, graceSeconds: 1 });
    const waiting = client.wait([await client.put(1)]);
    waiting.catch(() => {});
    server.stop();
    await expect(waiting).rejects.toThrow(RayConnectionError);
    await client.close();
  });

  it('is not sent again when the session is over', async () => {
    let calls = 0;
    server = await startFakeServer({
      wait: () => {
        calls++;
        return calls === 1 ? new Promise(() => {}) : Promise.resolve({ valid: true });
      },
    });
    const client = await connectRay({ address: server.address });
    const waiting = client.wait([await client.put(1)]);
    waiting.catch(() => {});
    await expect.poll(() => calls).toBe(1);
    server.end();
    await expect.poll(() => client.put(1).catch(({ message }: Error) => message)).toMatch(/ended the session/);
    server.cut();
    await expect(waiting).rejects.toThrow(/ended the session/);
    expect(calls).toBe(1);
    await client.close();
  });

  it('of which the server raises is not tried again', async () => {
    let calls = 0;
    server = await startFakeServer({
      wait: () => {
        calls++;
        return Promise.reject({ code: status.UNKNOWN, details: 'Exception calling application: no such ref' });
      },
    });
    const client = await connectRay({ address: server.address });
    const error = await client.wait([await client.put(1)]).catch((error: unknown) => error);
    expect(error).toEqual(new RayPythonError({ type: 'unknown', message: 'no such ref', traceback: '' }));
    expect(calls).toBe(1);
    await client.close();
  });
});

it('a connection that swallows everything counts as lost, and the requests on it are sent again', async () => {
  server = await startFakeServer();
  const keepalive = { everyMs: 200, answerMs: 1000 };
  const channel = new Channel({ address: parseAddress(server.address), clientId: 'client', keepalive });
  const states: string[] = [];
  const onState = (state: string) => {
    states.push(state);
    if (state === 'lost') server!.swallow(false);
  };
  const data = new DataStream({ channel, graceSeconds: 30, onState });
  await data.put({}, [Uint8Array.of(1)]);
  server.swallow(true);
  await expect(data.put({}, [Uint8Array.of(2)])).resolves.toMatchObject({ valid: true });
  expect(states.slice(0, 2)).toEqual(['lost', 'back']);
  await data.close();
  channel.close();
});

describe('a server that is not there', () => {
  const connecting = (host: string) => connectRay({ address: `ray://${host}`, connectMs: 2000 });

  it('is told apart from another gRPC server, at once', async () => {
    const other = new Server();
    const port = await new Promise<number>((resolve) =>
      other.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_, at) => resolve(at)),
    );
    const connecting = connectRay({ address: `ray://127.0.0.1:${port}`, connectMs: 300_000 });
    await expect(connecting).rejects.toThrow(/is no Ray Client server \(.*ClusterInfo.*\): give the port/);
    other.forceShutdown();
  });

  it('is told by what went wrong, not by the end of the time', async () => {
    const web = createServer((_, response) => response.end('no gRPC'));
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    const { port } = web.address() as AddressInfo;
    await expect(connecting(`127.0.0.1:${port}`)).rejects.toThrow(/: UNAVAILABLE: /);
    web.closeAllConnections();
    await new Promise((resolve) => web.close(resolve));
    await expect(connecting(`127.0.0.1:${port}`)).rejects.toThrow(/ECONNREFUSED/);
  });
});

it('a flush with nothing printed is no log entry', async () => {
  server = await startFakeServer({
    logs: [
      { level: -1, msg: '' },
      { level: -1, msg: 'printed\n' },
      { level: -2, msg: '' },
      { level: 30, msg: 'said' },
    ],
  });
  const entries: LogEntry[] = [];
  const client = await connectRay({ address: server.address, onLog: (entry) => entries.push(entry) });
  await expect.poll(() => entries.at(-1)?.text).toBe('said');
  expect(entries).toEqual([
    { stream: 'stdout', level: 0, text: 'printed\n' },
    { stream: 'log', level: 30, text: 'said' },
  ]);
  await client.close();
});
