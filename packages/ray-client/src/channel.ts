/** @file gRPC calls of the Ray Client services, typed by the generated messages. */
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import {
  type CallOptions,
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { RayConnectionError, type RayError, RayPythonError } from './errors.ts';
import { decodeException } from './exceptions.ts';
import { RayletDataStreamer, RayletDriver, RayletLogStreamer } from './ray_client_pb.ts';

/**
 * How often the server is asked for a sign, and how long it may owe it until the connection counts as lost: a network that only
 * swallows says nothing. Ray's own client waits for ten minutes.
 */
const KEEPALIVE = { everyMs: 10_000, answerMs: 30_000 };

/** As Ray's own client: objects travel in chunks, but a task's or a result's message may be large. */
const OPTIONS = {
  'grpc.max_send_message_length': 2 ** 31 - 1,
  'grpc.max_receive_message_length': 2 ** 31 - 1,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.max_reconnect_backoff_ms': 1000,
};

/** What the server says on purpose; anything else may be the network's. */
const FINAL = new Set([
  status.RESOURCE_EXHAUSTED,
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.FAILED_PRECONDITION,
  status.ABORTED,
  status.UNAUTHENTICATED,
  status.PERMISSION_DENIED,
  status.UNIMPLEMENTED,
]);

/** What the server's gRPC says of an exception that nothing in it took: the call would fail again. */
const UNCAUGHT = 'Exception calling application: ';

const isUncaught = ({ code, details }: ServiceError): boolean =>
  code === status.UNKNOWN && details.startsWith(UNCAUGHT);

export function isRecoverable(error: ServiceError): boolean {
  return !FINAL.has(error.code) && !isUncaught(error);
}

/** An exception that the server sent in the details of a status, or a failure of the connection. */
export function errorOfStatus(error: ServiceError, address: string): RayError {
  if (error.code === status.ABORTED) return decodeException(Buffer.from(error.details, 'base64'));
  if (isUncaught(error))
    return new RayPythonError({ type: 'unknown', message: error.details.slice(UNCAUGHT.length), traceback: '' });
  if (error.code === status.UNAUTHENTICATED || error.code === status.PERMISSION_DENIED)
    return new RayConnectionError(
      `${address} refuses this client (${error.details}): give the cluster's token, by the option token or by ` +
        'RAY_AUTH_MODE=token in the environment with RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token',
    );
  if (error.code === status.UNIMPLEMENTED)
    return new RayConnectionError(
      `${address} is no Ray Client server (${error.details}): give the port of ray start --ray-client-server-port, mostly 10001`,
    );
  return new RayConnectionError(`${address}: ${status[error.code] ?? error.code}: ${error.details}`);
}

type UnaryMethod = {
  [Name in keyof typeof RayletDriver.method]: (typeof RayletDriver.method)[Name]['methodKind'] extends 'unary'
    ? Name
    : never;
}[keyof typeof RayletDriver.method];
type Method<Name extends UnaryMethod> = (typeof RayletDriver.method)[Name];
export type RequestOf<Name extends UnaryMethod> = MessageInitShape<Method<Name>['input']>;
export type ResponseOf<Name extends UnaryMethod> = MessageShape<Method<Name>['output']>;
export type { UnaryMethod };

export type DataRequest = MessageShape<typeof RayletDataStreamer.method.datapath.input>;
export type DataResponse = MessageShape<typeof RayletDataStreamer.method.datapath.output>;
export type LogSettings = MessageShape<typeof RayletLogStreamer.method.logstream.input>;
export type LogData = MessageShape<typeof RayletLogStreamer.method.logstream.output>;

const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;
const serializer =
  <Schema extends DescMessage>(schema: Schema) =>
  (message: MessageShape<Schema>): Buffer => {
    const bytes = toBinary(schema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
const deserializer =
  <Schema extends DescMessage>(schema: Schema) =>
  (bytes: Buffer): MessageShape<Schema> =>
    fromBinary(schema, bytes);

export interface ChannelOptions {
  /** `host:port`. */
  address: string;
  clientId: string;
  token?: string | undefined;
  credentials?: ChannelCredentials | undefined;
  keepalive?: { everyMs: number; answerMs: number };
}

export class Channel {
  readonly address: string;
  readonly #client: Client;
  readonly #metadata = new Metadata();

  constructor({ address, clientId, token, credentials: given, keepalive = KEEPALIVE }: ChannelOptions) {
    this.address = address;
    this.#client = new Client(address, given ?? credentials.createInsecure(), {
      ...OPTIONS,
      'grpc.keepalive_time_ms': keepalive.everyMs,
      'grpc.keepalive_timeout_ms': keepalive.answerMs,
    });
    this.#metadata.set('client_id', clientId);
    if (token !== undefined) this.#metadata.set('authorization', `Bearer ${token}`);
  }

  #with(extra: Readonly<Record<string, string>>): Metadata {
    const metadata = this.#metadata.clone();
    for (const [key, value] of Object.entries(extra)) metadata.set(key, value);
    return metadata;
  }

  /** One call. @throws the ServiceError */
  unary<Name extends UnaryMethod>(
    name: Name,
    request: RequestOf<Name>,
    options: CallOptions & { metadata?: Readonly<Record<string, string>> } = {},
  ): Promise<ResponseOf<Name>> {
    const method = RayletDriver.method[name];
    const { metadata = {}, ...callOptions } = options;
    const message = create(method.input as DescMessage, request as never);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        pathOf(method),
        serializer(method.input as DescMessage),
        deserializer(method.output as DescMessage),
        message,
        this.#with(metadata),
        callOptions,
        (error, response) => (error ? reject(error) : resolve(response as ResponseOf<Name>)),
      );
    });
  }

  data(reconnecting: boolean): ClientDuplexStream<DataRequest, DataResponse> {
    const { datapath } = RayletDataStreamer.method;
    return this.#client.makeBidiStreamRequest(
      pathOf(datapath),
      serializer(datapath.input),
      deserializer(datapath.output),
      this.#with({ reconnecting: reconnecting ? 'True' : 'False' }),
    );
  }

  logs(): ClientDuplexStream<LogSettings, LogData> {
    const { logstream } = RayletLogStreamer.method;
    return this.#client.makeBidiStreamRequest(
      pathOf(logstream),
      serializer(logstream.input),
      deserializer(logstream.output),
      this.#with({}),
    );
  }

  close(): void {
    this.#client.close();
  }
}
