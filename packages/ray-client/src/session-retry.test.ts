/** @file A proxy whose fork for the session's process fails: the session is tried again, under another id. */
import { create, type DescMessage, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import type { DataRequest, DataResponse } from './channel.ts';
import { connectRay } from './client.ts';
import { RAY_VERSION, RayletDataStreamer, RayletDriver } from './ray_client_pb.ts';

const FORK_FAILED =
  'RuntimeError: Starting Ray client server failed. See ray_client_server_23003.err for detailed logs.';

const wire = (parent: string, name: string, input: DescMessage, output: DescMessage, requestStream: boolean) => ({
  path: `/${parent}/${name}`,
  requestStream,
  responseStream: requestStream,
  requestSerialize: (message: Message) => Buffer.from(toBinary(input, message)),
  requestDeserialize: (bytes: Buffer) => fromBinary(input, bytes),
  responseSerialize: (message: Message) => Buffer.from(toBinary(output, message)),
  responseDeserialize: (bytes: Buffer) => fromBinary(output, bytes),
});

let server: Server | undefined;
afterEach(() => server?.forceShutdown());

/** Answers a session's init with each of `inits` in turn ('' is success). Gives its address, and the ids that came. */
async function proxy(inits: readonly string[]): Promise<{ address: string; clients: string[] }> {
  const clients: string[] = [];
  const { clusterInfo } = RayletDriver.method;
  const { datapath } = RayletDataStreamer.method;
  server = new Server();
  server.addService(
    { clusterInfo: wire(clusterInfo.parent.typeName, clusterInfo.name, clusterInfo.input, clusterInfo.output, false) },
    {
      clusterInfo: (_: unknown, reply: (error: null, value: unknown) => void) =>
        reply(null, create(clusterInfo.output)),
    },
  );
  server.addService(
    { datapath: wire(datapath.parent.typeName, datapath.name, datapath.input, datapath.output, true) },
    {
      datapath: (call: ServerDuplexStream<DataRequest, DataResponse>) => {
        const id = String(call.metadata.get('client_id'));
        const answer = (reqId: number, type: unknown): unknown =>
          call.write(create(datapath.output, { reqId, type } as never) as DataResponse);
        call.on('data', ({ reqId, type }: DataRequest) => {
          if (type.case === 'init') {
            const msg = inits[clients.push(id) - 1] ?? '';
            answer(reqId, { case: 'init', value: { ok: msg === '', msg } });
            if (msg !== '') call.end();
          } else if (type.case === 'connectionInfo')
            answer(reqId, { case: 'connectionInfo', value: { rayVersion: RAY_VERSION, pythonVersion: '3.11' } });
          else if (type.case === 'connectionCleanup') answer(reqId, { case: 'connectionCleanup', value: {} });
        });
        call.on('end', () => call.end());
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server!.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    ),
  );
  return { address: `ray://127.0.0.1:${port}`, clients };
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
