/**
 * @file The data stream of a session: requests with ids, replies matched to them, large ones in chunks. A lost stream is opened
 * again within the grace period, and what was not answered is sent again under its id, so that the server runs nothing twice.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { type Channel, type DataRequest, type DataResponse, errorOfStatus, isRecoverable } from './channel.ts';
import { bytesOf, countChunks, cutChunks } from './chunks.ts';
import { RayConnectionError, RayError } from './errors.ts';
import { decodeException } from './exceptions.ts';
import {
  type ClientTaskSchema,
  ClusterInfoType_TypeEnum,
  DataRequestSchema,
  type GetResponse,
  type PutRequestSchema,
} from './ray_client_pb.ts';

/** Every so many replies the server is told which it need not keep for a replay any more. */
const ACKNOWLEDGE_EVERY = 32;
const PING_MS = 5_000;
const RETRY_MS = 200;
/** A stream that held this long was a good one: what follows is a new loss. */
const HELD_MS = 5_000;
const MAX_ID = 2 ** 31 - 1;

type Body = NonNullable<MessageInitShape<typeof DataRequestSchema>['type']>;
export type Reply<Case extends NonNullable<DataResponse['type']['case']>> = Extract<
  DataResponse['type'],
  { case: Case }
>['value'];

interface Pending {
  id: number;
  /** The messages of the request, again each time that it must be sent. */
  messages(): Iterable<DataRequest>;
  resolve(reply: DataResponse['type']): void;
  reject(error: RayError): void;
  /** What has come of a result in chunks. */
  chunks: Uint8Array[];
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export interface DataStreamOptions {
  channel: Channel;
  /** Seconds in which a lost stream may come back; 0: never. */
  graceSeconds: number;
  /** Told when the stream was lost, and when it came back. */
  onState(state: 'lost' | 'back', why: string): void;
}

export class DataStream {
  readonly #channel: Channel;
  readonly #graceSeconds: number;
  readonly #onState: DataStreamOptions['onState'];
  /** By id, in the order of sending. */
  readonly #pending = new Map<number, Pending>();
  #queue: Pick<Pending, 'messages'>[] = [];
  #stream: ClientDuplexStream<DataRequest, DataResponse> | undefined;
  #pumping = false;
  #lastId = 0;
  #replies = 0;
  #lastReplied = 0;
  #openedAt = 0;
  #lostAt = 0;
  #received = false;
  #ended: RayError | undefined;
  #closing = false;

  constructor(options: DataStreamOptions) {
    this.#channel = options.channel;
    this.#graceSeconds = options.graceSeconds;
    this.#onState = options.onState;
    this.#open(false);
  }

  /** Why the stream is no more; undefined while it is, or may come back. */
  get ended(): RayError | undefined {
    return this.#ended;
  }

  /** When the stream was lost last, on the clock of `performance.now()`. */
  get lostAt(): number {
    return this.#lostAt;
  }

  /** Sends a request of one message. @throws RayConnectionError when the session ends before the reply */
  async request<Case extends NonNullable<DataResponse['type']['case']>>(
    body: Body,
    expected: Case,
  ): Promise<Reply<Case>> {
    return expect(await this.#send((id) => () => [create(DataRequestSchema, { reqId: id, type: body })]), expected);
  }

  /** Puts an object whose pickle is given in parts. */
  async put(fields: MessageInitShape<typeof PutRequestSchema>, parts: readonly Uint8Array[]): Promise<Reply<'put'>> {
    const totalSize = BigInt(bytesOf(parts));
    const body = (chunk: object): Body => ({ case: 'put', value: { ...fields, ...chunk, totalSize } });
    return expect(await this.#sendChunked(body, parts), 'put');
  }

  /** Schedules a task whose pickled arguments are given in parts. */
  async task(
    fields: MessageInitShape<typeof ClientTaskSchema>,
    parts: readonly Uint8Array[],
  ): Promise<Reply<'taskTicket'>> {
    const body = (chunk: object): Body => ({ case: 'task', value: { ...fields, ...chunk } });
    return expect(await this.#sendChunked(body, parts), 'taskTicket');
  }

  /** The pickle of an object, once it is there. @throws RayPythonError when the server can't give it */
  async get(objectId: Uint8Array): Promise<Uint8Array> {
    const reply = await this.#send((id, chunks) => () => {
      const get = { ids: [objectId], asynchronous: true, startChunkId: chunks.length };
      return [create(DataRequestSchema, { reqId: id, type: { case: 'get', value: get } })];
    });
    const { valid, data, error } = expect(reply, 'get');
    if (!valid) throw decodeException(error);
    return data;
  }

  /** Ends the session at once: the server frees what the client held. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#closing = true;
    const cleanup = this.request({ case: 'connectionCleanup', value: {} }, 'connectionCleanup');
    await Promise.race([cleanup.catch(() => {}), sleep(PING_MS)]);
    this.#end(new RayConnectionError(`the session with ${this.#channel.address} was closed`));
  }

  /** Ends without asking the server to clean up: there is no session to end. */
  abandon(reason: RayConnectionError): void {
    this.#end(reason);
  }

  /** Breaks the connection as a network would; the stream comes back within the grace period. */
  interrupt(): void {
    this.#stream?.cancel();
  }

  #sendChunked(body: (chunk: object) => Body, parts: readonly Uint8Array[]): Promise<DataResponse['type']> {
    const totalChunks = countChunks(parts);
    return this.#send(
      (id) =>
        function* () {
          let chunkId = 0;
          for (const data of cutChunks(parts))
            yield create(DataRequestSchema, { reqId: id, type: body({ data, chunkId: chunkId++, totalChunks }) });
        },
    );
  }

  #send(messages: (id: number, chunks: readonly Uint8Array[]) => Pending['messages']): Promise<DataResponse['type']> {
    if (this.#ended) return Promise.reject(this.#ended);
    this.#lastId = this.#lastId === MAX_ID ? 1 : this.#lastId + 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const chunks: Uint8Array[] = [];
      const pending: Pending = { id, messages: messages(id, chunks), resolve, reject, chunks };
      this.#pending.set(id, pending);
      this.#write(pending);
    });
  }

  #write(item: Pick<Pending, 'messages'>): void {
    this.#queue.push(item);
    if (this.#stream && !this.#pumping) void this.#pump(this.#stream);
  }

  /** One request after the other: the server can't take chunks of two at a time. */
  async #pump(stream: ClientDuplexStream<DataRequest, DataResponse>): Promise<void> {
    this.#pumping = true;
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      for (const message of next.messages()) {
        const room = stream.write(message);
        if (!room) await new Promise((resolve) => stream.once('drain', resolve).once('close', resolve));
        if (stream !== this.#stream) return; // Whatever was lost with it is sent again.
      }
    }
    this.#pumping = false;
  }

  #open(reconnecting: boolean): void {
    const stream = this.#channel.data(reconnecting);
    this.#stream = stream;
    this.#openedAt = performance.now();
    this.#received = false;
    stream.on('data', (response: DataResponse) => {
      if (stream === this.#stream) this.#take(response);
    });
    stream.on('error', (error: ServiceError) => {
      if (stream === this.#stream) this.#lost(error);
    });
    stream.on('end', () => {
      // A status follows as an error, unless the server just ended.
      setImmediate(() => {
        if (stream === this.#stream && !this.#closing)
          this.#end(new RayConnectionError(`${this.#channel.address} ended the session`));
      });
    });
    this.#pumping = false;
    if (this.#queue.length > 0) void this.#pump(stream);
  }

  #take({ reqId, type }: DataResponse): void {
    this.#received = true;
    const pending = this.#pending.get(reqId);
    if (!pending) return; // Answered before the stream was lost, and again.
    if (type.case === 'get' && type.value.valid && !this.#complete(pending, type.value)) return;
    this.#pending.delete(reqId);
    this.#lastReplied = reqId;
    this.#replies++;
    if (this.#graceSeconds > 0 && this.#replies % ACKNOWLEDGE_EVERY === 0) {
      const type = { case: 'acknowledge' as const, value: { reqId: this.#lastReplied } };
      this.#write({ messages: () => [create(DataRequestSchema, { type })] });
    }
    pending.resolve(type);
  }

  /** Adds a chunk of a result; whether it was the last, which then holds all of them. */
  #complete({ id, chunks, reject }: Pending, part: GetResponse): boolean {
    if (part.chunkId < chunks.length) return false; // Came before the stream was lost, and again.
    if (part.chunkId > chunks.length) {
      this.#pending.delete(id);
      reject(new RayConnectionError(`chunk ${part.chunkId} of a result came where ${chunks.length} was due`));
      return false;
    }
    chunks.push(part.data);
    if (part.chunkId !== part.totalChunks - 1) return false;
    part.data = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    return true;
  }

  #lost(error: ServiceError): void {
    this.#stream = undefined;
    const why = errorOfStatus(error, this.#channel.address);
    if (this.#closing || this.#graceSeconds === 0 || !isRecoverable(error)) {
      this.#end(why);
      return;
    }
    const now = performance.now();
    if (this.#received || now - this.#openedAt > HELD_MS) this.#lostAt = now;
    this.#onState('lost', why.message);
    void this.#reconnect(why);
  }

  async #reconnect(why: RayError): Promise<void> {
    let last = why;
    for (;;) {
      if (this.#ended) return;
      if (performance.now() - this.#lostAt > this.#graceSeconds * 1000)
        return this.#end(
          new RayConnectionError(
            `could not reconnect within the grace period of ${this.#graceSeconds} s: ${last.message}`,
          ),
        );
      try {
        const type = ClusterInfoType_TypeEnum.PING;
        await this.#channel.unary('clusterInfo', { type }, { deadline: Date.now() + PING_MS });
        break;
      } catch (error) {
        last = errorOfStatus(error as ServiceError, this.#channel.address);
        if (!isRecoverable(error as ServiceError)) return this.#end(last);
        await sleep(RETRY_MS);
      }
    }
    if (this.#ended) return;
    this.#queue = [...this.#pending.values()];
    this.#open(true);
    this.#onState('back', `${this.#pending.size} requests were sent again`);
  }

  #end(error: RayError): void {
    this.#ended ??= error;
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.on('error', () => {}).cancel();
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
    this.#queue = [];
  }
}

function expect<Case extends NonNullable<DataResponse['type']['case']>>(
  reply: DataResponse['type'],
  expected: Case,
): Reply<Case> {
  if (reply.case !== expected) throw new RayError(`the server answered ${reply.case} where ${expected} was due`);
  return reply.value as Reply<Case>;
}
