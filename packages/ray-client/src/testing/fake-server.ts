/** @file For tests: a Ray Client server that holds no cluster. What it answers is the test's; its connections can be cut. */
import { connect, createServer, type Socket } from 'node:net';
import { create, type DescMessage, type DescMethod, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { Server, ServerCredentials, type ServerDuplexStream, type ServiceError } from '@grpc/grpc-js';
import type { DataRequest, DataResponse, LogData, LogSettings, ResponseOf, UnaryMethod } from '../channel.ts';
import { RAY_VERSION, RayletDataStreamer, RayletDriver, RayletLogStreamer } from '../ray_client_pb.ts';

type RequestType = NonNullable<DataRequest['type']['case']>;
export type RequestOfType<Case extends RequestType> = Extract<DataRequest['type'], { case: Case }>['value'];
/** A reply, its fields as `create` takes them. */
export type Answer = { case: string; value: object };

export interface FakeBehaviour {
  /** Why a session, the first being 0, does not begin; '' where it does. Default ''. */
  init?: (session: number) => string;
  /** The answer to a request of a session; undefined: none yet (`reply` gives it). Default: 'default', success. */
  answer?: (request: DataRequest['type'], id: number) => Answer | undefined | 'default';
  wait?: (request: { timeout: number }) => Promise<object>;
  logs?: readonly { level: number; msg: string }[];
}

export interface FakeServer {
  address: string;
  /** Ids of the clients whose sessions began or did not. */
  clients: string[];
  /** All requests of sessions, in the order of their coming. */
  requests: DataRequest['type'][];
  /** Sends the reply of a request. */
  reply(id: number, answer: Answer): void;
  /** Ends the data streams of all sessions. */
  end(): void;
  /** Breaks all connections; new ones are taken. */
  cut(): void;
  /** From now on nothing that is sent arrives, in either direction, and nobody is told; or again it does, on new connections. */
  swallow(on: boolean): void;
  stop(): void;
}

const service = (method: DescMethod, stream: boolean) => ({
  [method.localName]: {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: stream,
    responseStream: stream,
    requestSerialize: serialize(method.input),
    requestDeserialize: deserialize(method.input),
    responseSerialize: serialize(method.output),
    responseDeserialize: deserialize(method.output),
  },
});
const serialize = (schema: DescMessage) => (message: Message) => Buffer.from(toBinary(schema, message));
const deserialize = (schema: DescMessage) => (bytes: Buffer) => fromBinary(schema, bytes);

let lastObject = 0;
const newId = (): Uint8Array => Buffer.from(String(++lastObject).padStart(28, '0'));

function defaultAnswer({ case: type, value }: DataRequest['type']): Answer | undefined {
  switch (type) {
    case 'connectionInfo':
      return { case: type, value: { rayVersion: RAY_VERSION, pythonVersion: '3.11' } };
    case 'put':
      return { case: type, value: { id: newId(), valid: true } };
    case 'task':
      return { case: 'taskTicket', value: { returnIds: [newId()], valid: true } };
    case 'release':
      return { case: type, value: { ok: value.ids.map(() => true) } };
    case 'terminate':
      return { case: type, value: { ok: true } };
    case 'connectionCleanup':
      return { case: type, value: {} };
    default:
      return undefined;
  }
}

export async function startFakeServer(behaviour: FakeBehaviour = {}): Promise<FakeServer> {
  const clients: string[] = [];
  const requests: DataRequest['type'][] = [];
  const server = new Server();
  /** Where a request came last, by its id. */
  const streams = new Map<number, ServerDuplexStream<DataRequest, DataResponse>>();
  const reply = (reqId: number, type: Answer): void => {
    streams
      .get(reqId)!
      .write(create(RayletDataStreamer.method.datapath.output, { reqId, type } as never) as DataResponse);
  };
  const unary = (name: UnaryMethod, answer: (request: never) => Promise<object>): void => {
    const { [name]: method } = RayletDriver.method;
    server.addService(service(method, false), {
      [method.localName]: (
        call: { request: unknown },
        callback: (error: Partial<ServiceError> | null, value?: unknown) => void,
      ) => {
        answer(call.request as never).then(
          (value) => callback(null, create(method.output as DescMessage, value as never) as ResponseOf<UnaryMethod>),
          (error: Partial<ServiceError>) => callback(error),
        );
      },
    });
  };
  unary('clusterInfo', async () => ({}));
  unary('waitObject', behaviour.wait ?? (async () => ({ valid: true })));
  server.addService(service(RayletDataStreamer.method.datapath, true), {
    datapath: (call: ServerDuplexStream<DataRequest, DataResponse>) => {
      call.on('error', () => {});
      call.on('end', () => call.end());
      call.on('data', ({ reqId, type }: DataRequest) => {
        requests.push(type);
        streams.set(reqId, call);
        if (type.case === 'init') {
          const msg = behaviour.init?.(clients.push(String(call.metadata.get('client_id'))) - 1) ?? '';
          reply(reqId, { case: 'init', value: { ok: msg === '', msg } });
          if (msg !== '') call.end();
          return;
        }
        const given = behaviour.answer ? behaviour.answer(type, reqId) : 'default';
        const answer = given === 'default' ? defaultAnswer(type) : given;
        if (answer) reply(reqId, answer);
      });
    },
  });
  server.addService(service(RayletLogStreamer.method.logstream, true), {
    logstream: (call: ServerDuplexStream<LogSettings, LogData>) => {
      call.on('error', () => {});
      for (const entry of behaviour.logs ?? [])
        call.write(create(RayletLogStreamer.method.logstream.output, entry) as LogData);
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    ),
  );
  const wires = await startWires(port);
  const end = (): void => {
    for (const stream of streams.values()) stream.end();
  };
  const stop = (): void => {
    wires.stop();
    server.forceShutdown();
  };
  return {
    address: `ray://127.0.0.1:${wires.port}`,
    clients,
    requests,
    reply,
    end,
    cut: wires.cut,
    swallow: wires.swallow,
    stop,
  };
}

/** Connections that can be cut, as a network does. */
async function startWires(target: number): Promise<Pick<FakeServer, 'cut' | 'swallow' | 'stop'> & { port: number }> {
  const sockets = new Set<Socket>();
  const swallowed = new WeakSet<Socket>();
  let swallowing = false;
  const wires = createServer((near) => {
    if (swallowing) swallowed.add(near);
    const far = connect(target, '127.0.0.1');
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.on('data', (bytes) => {
        if (!swallowed.has(socket)) other.write(bytes);
      });
    }
  });
  await new Promise<void>((resolve) => wires.listen(0, '127.0.0.1', resolve));
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const swallow = (on: boolean): void => {
    swallowing = on;
    if (on) for (const socket of sockets) swallowed.add(socket);
  };
  const at = wires.address();
  return {
    port: typeof at === 'object' && at ? at.port : 0,
    cut,
    swallow,
    stop: () => {
      wires.close();
      cut();
    },
  };
}
