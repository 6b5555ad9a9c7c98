/** @file A session with a Ray cluster through its Ray Client server. */
import { randomBytes } from 'node:crypto';
import { type PickleValue, pickleCall, writePickle } from '@frame-thinker/pickle';
import type { ChannelCredentials, ServiceError } from '@grpc/grpc-js';
import { findToken, parseAddress } from './address.ts';
import { Channel, errorOfStatus, isRecoverable, type RequestOf, type ResponseOf, type UnaryMethod } from './channel.ts';
import { DataStream } from './data-stream.ts';
import { RayConnectionError, RayError, RayTimeoutError, RayValueError } from './errors.ts';
import { decodeException, failureOf } from './exceptions.ts';
import { ActorClass, ActorHandle, ObjectRef, RemoteFunction } from './handles.ts';
import { type LogEntry, LogStream } from './log-stream.ts';
import { type ActorOptions, type MethodOptions, pickleFields, pickleOptions, type TaskOptions } from './options.ts';
import type { PythonCode } from './python.ts';
import { ClientTask_RemoteExecType as ExecType, ClusterInfoType_TypeEnum as InfoType } from './ray_client_pb.ts';
import type { Reference } from './reference.ts';
import { prepareRuntimeEnv, type RuntimeEnv } from './runtime-env.ts';
import { decodeValue, encodeArguments, encodeValue, PickleError, type ReferenceName, referenceStub } from './values.ts';
import { checkVersion } from './version.ts';

const CONNECT_MS = 60_000;
const RETRY_MS = 500;
/**
 * Ray's proxy starts a process for every session by a fork that gRPC's threads can break (ray-project/ray#60316): it ends before it
 * has run anything, so that the session can be tried again, as another client.
 */
const SESSION_TRIES = 5;
const SESSION_PROCESS_FAILED = /Starting Ray client server failed|psutil\.(ZombieProcess|NoSuchProcess)/;
/** How long the head keeps an uploaded package that nothing uses yet. */
const PIN_SECONDS = 600;

export interface ConnectOptions {
  /** `ray://host:port`, the port of the head node's Ray Client server (10001 by default). */
  address: string;
  /** Named actors are found within a namespace; absent: one of this session's own. */
  namespace?: string;
  runtimeEnv?: RuntimeEnv;
  /** Seconds that a lost connection may take to come back, 30 by default; 0: a lost connection ends the session. */
  graceSeconds?: number;
  /** How long the server may take to answer at first, 60,000 ms by default. */
  connectMs?: number;
  /** Of clusters with RAY_AUTH_MODE=token; absent: as Ray itself finds it (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token). */
  token?: string;
  /** TLS; absent: none. */
  credentials?: ChannelCredentials;
  /** Called with what remote code prints. */
  onLog?: (entry: LogEntry) => void;
  /** Called when something is wrong that does not end the session: another version of Ray, a lost connection. */
  onWarning?: (message: string) => void;
}

export interface ConnectionInfo {
  rayVersion: string;
  rayCommit: string;
  pythonVersion: string;
  numClients: number;
}

/** Opens a session. @throws RayConnectionError, RayVersionError, RayRuntimeEnvError */
export async function connectRay(options: ConnectOptions): Promise<RayClient> {
  for (let attempt = 1; ; attempt++) {
    const client = new RayClient(options);
    try {
      await client.open();
      return client;
    } catch (error) {
      await client.close();
      const failed = error instanceof RayConnectionError && SESSION_PROCESS_FAILED.test(error.message);
      if (!failed || attempt === SESSION_TRIES) throw error;
      options.onWarning?.(`Ray could not start the session's process; try ${attempt + 1} of ${SESSION_TRIES}`);
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class RayClient {
  readonly #options: ConnectOptions;
  readonly #clientId = randomBytes(16).toString('hex');
  readonly #graceSeconds: number;
  readonly #channel: Channel;
  #data: DataStream | undefined;
  #logs: LogStream | undefined;
  #info: ConnectionInfo | undefined;
  /** Calls of the KV store that change it, one after the other: the server remembers the last, for repeats. */
  #changes: Promise<unknown> = Promise.resolve();
  #lastChange = 0;
  #toRelease: Uint8Array[] = [];

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#graceSeconds = options.graceSeconds ?? 30;
    this.#channel = new Channel({
      address: parseAddress(options.address),
      clientId: this.#clientId,
      token: options.token ?? findToken(process.env),
      credentials: options.credentials,
    });
  }

  /** What the cluster runs. */
  get info(): ConnectionInfo {
    if (!this.#info) throw new RayConnectionError('the session is not open');
    return this.#info;
  }

  /** Called by connectRay. */
  async open(): Promise<void> {
    const { namespace, runtimeEnv = {}, onLog, onWarning } = this.#options;
    const deadline = Date.now() + (this.#options.connectMs ?? CONNECT_MS);
    await this.#unary('clusterInfo', { type: InfoType.PING }, { deadline });
    const { fields, upload } = prepareRuntimeEnv(runtimeEnv);
    // The package must be there before the session is: its first process runs in it.
    if (upload) {
      await this.kvPut(upload.uri, upload.data);
      await this.#unary('pinRuntimeEnvURI', { uri: upload.uri, expirationS: PIN_SECONDS });
    }
    this.#data = new DataStream({
      channel: this.#channel,
      graceSeconds: this.#graceSeconds,
      onState: (state, why) => {
        if (state === 'lost') onWarning?.(`the connection to Ray was lost: ${why}`);
        else onWarning?.(`the connection to Ray is back: ${why}`);
      },
    });
    const jobConfig = this.#jobConfig(fields, namespace);
    const init = await this.#data.request(
      {
        case: 'init',
        value: {
          jobConfig,
          rayInitKwargs: JSON.stringify({ _skip_env_hook: true }),
          reconnectGracePeriod: this.#graceSeconds,
        },
      },
      'init',
    );
    if (!init.ok) {
      const failure = new RayConnectionError(`${this.#options.address} began no session:\n${init.msg}`);
      this.#data.abandon(failure);
      throw failure;
    }
    const info = await this.#data.request({ case: 'connectionInfo', value: {} }, 'connectionInfo');
    this.#info = {
      rayVersion: info.rayVersion,
      rayCommit: info.rayCommit,
      pythonVersion: info.pythonVersion,
      numClients: info.numClients,
    };
    checkVersion(info.rayVersion, onWarning);
    if (onLog) this.#logs = new LogStream(this.#channel, onLog);
  }

  #jobConfig(runtimeEnv: Record<string, unknown>, namespace: string | undefined): Uint8Array {
    const env = Object.keys(runtimeEnv).length > 0 ? pickleFields(runtimeEnv) : null;
    // JobConfig(jvm_options, code_search_path, runtime_env, _client_job, metadata, ray_namespace)
    return writePickle(pickleCall('ray.job_config JobConfig', null, null, env, true, null, namespace ?? null));
  }

  get #session(): DataStream {
    if (!this.#data) throw new RayConnectionError('the session is not open');
    return this.#data;
  }

  /** Stores a value in the cluster. @throws RayValueError when it is not plain data */
  async put(value: unknown): Promise<ObjectRef> {
    return this.#put(encodeValue(value, this.#writeReference));
  }

  async #put(pickled: readonly Uint8Array[]): Promise<ObjectRef> {
    const reply = await this.#session.put({}, pickled);
    if (!reply.valid) throw decodeException(reply.error);
    return new ObjectRef(reply.id);
  }

  /**
   * Waits for an object and brings it here.
   * @throws RayPythonError what its task raised or died of; RayValueError when it is not plain data; RayTimeoutError
   */
  async get(ref: ObjectRef, { timeoutMs }: { timeoutMs?: number } = {}): Promise<unknown> {
    const bytes = await withTimeout(this.#session.get(ref.id), timeoutMs);
    try {
      return decodeValue(bytes, (reference) => this.#referenceOf(reference));
    } catch (error) {
      const failure = failureOf(bytes);
      if (failure) throw failure;
      if (error instanceof PickleError)
        throw new RayValueError(`the object is not plain data (${error.message}): return lists, dicts, numbers, bytes`);
      throw error;
    }
  }

  readonly #writeReference = (reference: Reference): PickleValue => referenceStub(reference, this.#clientId);

  #referenceOf({ kind, id }: ReferenceName): ObjectRef | ActorHandle {
    return kind === 'Object' ? new ObjectRef(id) : new ActorHandle(this, id);
  }

  /** Waits until `numReturns` (1) objects are there, or the time is over; objects that failed are there too. */
  async wait(
    refs: readonly ObjectRef[],
    { numReturns = 1, timeoutMs }: { numReturns?: number; timeoutMs?: number } = {},
  ): Promise<{ ready: ObjectRef[]; rest: ObjectRef[] }> {
    const reply = await this.#unary('waitObject', {
      objectIds: refs.map(({ id }) => id),
      numReturns: BigInt(numReturns),
      timeout: timeoutMs === undefined ? -1 : timeoutMs / 1000,
      clientId: this.#clientId,
    });
    if (!reply.valid) throw new RayError('the server could not wait for the objects: was one of them released?');
    const objects = (ids: readonly Uint8Array[]) => ids.map((id) => new ObjectRef(id));
    return { ready: objects(reply.readyObjectIds), rest: objects(reply.remainingObjectIds) };
  }

  /** Gives objects and actors up: the cluster may free them. */
  async release(...references: readonly Reference[]): Promise<void> {
    await this.#session.request({ case: 'release', value: { ids: references.map(({ id }) => id) } }, 'release');
  }

  /** The same at some time soon, many in one message, without waiting for it. */
  releaseSoon(...references: readonly Reference[]): void {
    if (this.#toRelease.length === 0)
      setImmediate(() => {
        const ids = this.#toRelease;
        this.#toRelease = [];
        // A session that ended has freed them.
        if (!this.#session.ended) this.#session.request({ case: 'release', value: { ids } }, 'release').catch(() => {});
      });
    for (const { id } of references) this.#toRelease.push(id);
  }

  /** A function of the cluster. */
  async function(code: PythonCode): Promise<RemoteFunction> {
    return new RemoteFunction(this, { name: code.name, ref: await this.#putCode(code.pickled) });
  }

  /** A class of the cluster, to make actors of. */
  async actorClass(code: PythonCode): Promise<ActorClass> {
    return new ActorClass(this, { name: code.name, ref: await this.#putCode(code.pickled) });
  }

  #putCode(pickled: PickleValue): Promise<ObjectRef> {
    return this.#put([writePickle(pickled)]);
  }

  /** The actor of a name. @throws RayPythonError when there is none */
  async getActor(name: string, { namespace = '' }: { namespace?: string } = {}): Promise<ActorHandle> {
    const [id] = await this.#schedule({ type: ExecType.NAMED_ACTOR, name, namespace }, [], {});
    return new ActorHandle(this, id!);
  }

  /** For RemoteFunction. */
  async runFunction(task: {
    name: string;
    code: ObjectRef;
    args: readonly unknown[];
    options: TaskOptions;
  }): Promise<ObjectRef[]> {
    const fields = { type: ExecType.FUNCTION, name: task.name, payloadId: task.code.id };
    return (await this.#schedule(fields, task.args, task.options)).map((id) => new ObjectRef(id));
  }

  /** For ActorClass. */
  async createActor(task: {
    name: string;
    code: ObjectRef;
    args: readonly unknown[];
    options: ActorOptions;
  }): Promise<ActorHandle> {
    const fields = { type: ExecType.ACTOR, name: task.name, payloadId: task.code.id };
    const [id] = await this.#schedule(fields, task.args, task.options);
    return new ActorHandle(this, id!);
  }

  /** For ActorHandle. */
  async runMethod(task: {
    actor: ActorHandle;
    method: string;
    args: readonly unknown[];
    options: MethodOptions;
  }): Promise<ObjectRef[]> {
    const fields = { type: ExecType.METHOD, name: task.method, payloadId: task.actor.id };
    return (await this.#schedule(fields, task.args, task.options)).map((id) => new ObjectRef(id));
  }

  async #schedule(
    fields: { type: ExecType; name: string; payloadId?: Uint8Array; namespace?: string },
    args: readonly unknown[],
    options: TaskOptions & ActorOptions,
  ): Promise<Uint8Array[]> {
    const pickled = pickleOptions(options);
    const task = {
      ...fields,
      clientId: this.#clientId,
      ...(pickled ? { options: { pickledOptions: writePickle(pickled) } } : {}),
    };
    const ticket = await this.#session.task(task, encodeArguments(args, this.#writeReference));
    if (!ticket.valid) throw decodeException(ticket.error);
    return ticket.returnIds;
  }

  /** Ends an actor at once; with `restart` Ray starts it again as its maxRestarts say. */
  async kill(actor: ActorHandle, { restart = false }: { restart?: boolean } = {}): Promise<void> {
    const terminateType = { case: 'actor' as const, value: { id: actor.id, noRestart: !restart } };
    await this.#session.request({ case: 'terminate', value: { clientId: this.#clientId, terminateType } }, 'terminate');
  }

  /** Cancels the task that makes an object; `force` ends its process. */
  async cancel(ref: ObjectRef, { force = false }: { force?: boolean } = {}): Promise<void> {
    const terminateType = { case: 'taskObject' as const, value: { id: ref.id, force, recursive: true } };
    await this.#session.request({ case: 'terminate', value: { clientId: this.#clientId, terminateType } }, 'terminate');
  }

  async namedActors({ allNamespaces = false } = {}): Promise<{ name: string; namespace: string }[]> {
    const { actorsJson } = await this.#session.request(
      { case: 'listNamedActors', value: { allNamespaces } },
      'listNamedActors',
    );
    const list: (string | { name: string; namespace: string })[] = JSON.parse(actorsJson);
    return list.map((item) => (typeof item === 'string' ? { name: item, namespace: '' } : item));
  }

  /** The cluster's nodes as Ray describes them: NodeID, Alive, NodeManagerAddress, Resources … */
  async nodes(): Promise<Record<string, unknown>[]> {
    const { responseType } = await this.#unary('clusterInfo', { type: InfoType.NODES });
    return responseType.case === 'json' ? JSON.parse(responseType.value) : [];
  }

  clusterResources(): Promise<Record<string, number>> {
    return this.#resources(InfoType.CLUSTER_RESOURCES);
  }

  availableResources(): Promise<Record<string, number>> {
    return this.#resources(InfoType.AVAILABLE_RESOURCES);
  }

  async #resources(type: InfoType): Promise<Record<string, number>> {
    const { responseType } = await this.#unary('clusterInfo', { type });
    return responseType.case === 'resourceTable' ? responseType.value.table : {};
  }

  /** Stores bytes in the cluster's KV store; whether there were some under the key already. */
  async kvPut(key: string, value: Uint8Array, { overwrite = true } = {}): Promise<boolean> {
    return (await this.#change('kVPut', { key: Buffer.from(key), value, overwrite })).alreadyExists;
  }

  async kvGet(key: string): Promise<Uint8Array | undefined> {
    const { value } = await this.#unary('kVGet', { key: Buffer.from(key) });
    return value && new Uint8Array(value);
  }

  /** Deletes a key, or all that begin with it; how many there were. */
  async kvDelete(key: string, { prefix = false } = {}): Promise<number> {
    return (await this.#change('kVDel', { key: Buffer.from(key), delByPrefix: prefix })).deletedNum;
  }

  #change<Name extends 'kVPut' | 'kVDel'>(name: Name, request: RequestOf<Name>): Promise<ResponseOf<Name>> {
    const metadata = { thread_id: '1', req_id: String(++this.#lastChange) };
    const done = this.#changes.then(() => this.#unary(name, request, { metadata }));
    this.#changes = done.catch(() => {});
    return done;
  }

  /** One call; sent again while the connection is lost and may come back. */
  async #unary<Name extends UnaryMethod>(
    name: Name,
    request: RequestOf<Name>,
    options: { deadline?: number; metadata?: Readonly<Record<string, string>> } = {},
  ): Promise<ResponseOf<Name>> {
    const giveUp = options.deadline ?? Date.now() + this.#graceSeconds * 1000;
    for (;;) {
      try {
        return await this.#channel.unary(name, request, options);
      } catch (error) {
        if (!isRecoverable(error as ServiceError) || this.#data?.ended || Date.now() > giveUp)
          throw errorOfStatus(error as ServiceError, this.#channel.address);
        await sleep(RETRY_MS);
      }
    }
  }

  /** Breaks the connection as a failing network would: what a test of reconnecting needs. */
  interrupt(): void {
    this.#session.interrupt();
  }

  /** Ends the session: what it holds in the cluster is freed, its actors end, detached ones stay. */
  async close(): Promise<void> {
    this.#logs?.close();
    await this.#data?.close();
    this.#channel.close();
  }
}

async function withTimeout<T>(promise: Promise<T>, timeoutMs: number | undefined): Promise<T> {
  if (timeoutMs === undefined) return promise;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new RayTimeoutError(`the object was not there after ${timeoutMs} ms`)), timeoutMs);
  });
  promise.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
