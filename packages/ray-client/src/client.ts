/** @file What a session can do: objects, functions, actors, and what there is in the cluster. */
import { type PickleValue, writePickle } from '@frame-thinker/pickle';
import { RayError, RayTimeoutError, RayValueError } from './errors.ts';
import { decodeException, failureOf } from './exceptions.ts';
import { ActorClass, ActorHandle, ObjectRef, RemoteFunction, type Scheduler, type Task } from './handles.ts';
import { type ActorOptions, type MethodOptions, pickleOptions, type TaskOptions } from './options.ts';
import type { PythonCode } from './python.ts';
import { ClientTask_RemoteExecType as ExecType, ClusterInfoType_TypeEnum as InfoType } from './ray_client_pb.ts';
import { HeldReferences, type Reference } from './reference.ts';
import type { ConnectionInfo, Session } from './session.ts';
import { decodeValue, encodeArguments, encodeValue, PickleError, type ReferenceName, referenceStub } from './values.ts';

export class RayClient implements Scheduler {
  readonly #session: Session;
  readonly #held = new HeldReferences();
  #releasing = false;

  /** @param session that is open */
  constructor(session: Session) {
    this.#session = session;
  }

  /** What the cluster runs. */
  get info(): ConnectionInfo {
    return this.#session.info;
  }

  /** Stores a value in the cluster. @throws RayValueError when it is not plain data */
  async put(value: unknown): Promise<ObjectRef> {
    return this.#put(encodeValue(value, this.#writeReference));
  }

  async #put(pickled: readonly Uint8Array[]): Promise<ObjectRef> {
    const reply = await this.#session.data.put({}, pickled);
    if (!reply.valid) throw decodeException(reply.error);
    return this.#held.add(new ObjectRef(reply.id));
  }

  /**
   * Waits for an object and brings it here.
   * @throws RayPythonError what its task raised or died of; RayValueError when it is not plain data, or was released;
   * RayTimeoutError
   */
  async get(ref: ObjectRef, { timeoutMs }: { timeoutMs?: number } = {}): Promise<unknown> {
    const bytes = await withTimeout(this.#read(ref), timeoutMs);
    try {
      return decodeValue(bytes, (name) => this.#referenceOf(name));
    } catch (error) {
      const failure = failureOf(bytes);
      if (failure) throw failure;
      if (error instanceof PickleError)
        throw new RayValueError(`the object is not plain data (${error.message}): return lists, dicts, numbers, bytes`);
      throw error;
    }
  }

  async #read(ref: ObjectRef): Promise<Uint8Array> {
    this.#held.check(ref);
    this.#held.await(ref);
    try {
      return await this.#session.data.get(ref.id);
    } finally {
      if (this.#held.answered(ref)) this.#releaseDueSoon();
    }
  }

  readonly #writeReference = (reference: Reference): PickleValue => {
    this.#held.check(reference);
    return referenceStub(reference, this.#session.clientId);
  };

  #referenceOf({ kind, id }: ReferenceName): ObjectRef | ActorHandle {
    return this.#held.add(kind === 'Object' ? new ObjectRef(id) : new ActorHandle(this, id));
  }

  /**
   * Waits until `numReturns` (1) objects are there, or the time is over; objects that failed are there too.
   * @throws RayValueError for what can't be waited for: an object twice or released, more returns than objects
   */
  async wait(
    refs: readonly ObjectRef[],
    { numReturns = 1, timeoutMs }: { numReturns?: number; timeoutMs?: number } = {},
  ): Promise<{ ready: ObjectRef[]; rest: ObjectRef[] }> {
    this.#checkWait(refs, numReturns, timeoutMs);
    const end = performance.now() + (timeoutMs ?? 0);
    const reply = await this.#session.calls.call('waitObject', () => ({
      objectIds: refs.map(({ id }) => id),
      numReturns: BigInt(numReturns),
      // What is left of it, when the call is sent again after a loss.
      timeout: timeoutMs === undefined ? -1 : Math.max(0, end - performance.now()) / 1000,
      clientId: this.#session.clientId,
    }));
    if (!reply.valid) throw new RayError('the server could not wait for the objects; why is in its log');
    const objects = (ids: readonly Uint8Array[]) => ids.map((id) => new ObjectRef(id));
    return { ready: objects(reply.readyObjectIds), rest: objects(reply.remainingObjectIds) };
  }

  #checkWait(refs: readonly ObjectRef[], numReturns: number, timeoutMs: number | undefined): void {
    const ids = new Set<string>();
    for (const ref of refs) {
      this.#held.check(ref);
      if (ids.has(ref.hex)) throw new RayValueError(`wait is given the object ${ref.hex} twice`);
      ids.add(ref.hex);
    }
    // Of no objects at all none are there, at once.
    if (!Number.isInteger(numReturns) || numReturns < 1 || (refs.length > 0 && numReturns > refs.length))
      throw new RayValueError(`wait can't return ${numReturns} of ${refs.length} objects (numReturns)`);
    if (timeoutMs !== undefined && !(timeoutMs >= 0 && timeoutMs < Number.POSITIVE_INFINITY))
      throw new RayValueError(
        `wait can't take ${timeoutMs} ms (timeoutMs): leave it out to wait for as long as it takes`,
      );
  }

  /**
   * Gives objects and actors up: the cluster may free them. An object that a `get` still waits for, after its timeout too, is
   * given up when that is answered.
   */
  async release(...references: readonly Reference[]): Promise<void> {
    this.#held.release(references);
    await this.#releaseDue();
  }

  /** The same at some time soon, many in one message, without waiting for it. */
  releaseSoon(...references: readonly Reference[]): void {
    this.#held.release(references);
    this.#releaseDueSoon();
  }

  #releaseDueSoon(): void {
    if (this.#releasing) return;
    this.#releasing = true;
    setImmediate(() => {
      this.#releasing = false;
      // A session that ended has freed them.
      if (!this.#session.data.ended) this.#releaseDue().catch(() => {});
    });
  }

  async #releaseDue(): Promise<void> {
    const due = this.#held.takeDue();
    if (due.length === 0) return;
    await this.#session.data.request({ case: 'release', value: { ids: due.map(({ id }) => id) } }, 'release');
    this.#held.gone(due);
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
    return this.#held.add(new ActorHandle(this, id!));
  }

  /** For RemoteFunction. */
  async runFunction({ name, target, args, options }: Task<TaskOptions>): Promise<ObjectRef[]> {
    const ids = await this.#schedule({ type: ExecType.FUNCTION, name, payloadId: target.id }, args, options);
    return ids.map((id) => this.#held.add(new ObjectRef(id)));
  }

  /** For ActorClass. */
  async createActor({ name, target, args, options }: Task<ActorOptions>): Promise<ActorHandle> {
    const [id] = await this.#schedule({ type: ExecType.ACTOR, name, payloadId: target.id }, args, options);
    return this.#held.add(new ActorHandle(this, id!));
  }

  /** For ActorHandle. */
  async runMethod({ name, target, args, options }: Task<MethodOptions>): Promise<ObjectRef[]> {
    this.#held.check(target);
    const ids = await this.#schedule({ type: ExecType.METHOD, name, payloadId: target.id }, args, options);
    return ids.map((id) => this.#held.add(new ObjectRef(id)));
  }

  async #schedule(
    fields: { type: ExecType; name: string; payloadId?: Uint8Array; namespace?: string },
    args: readonly unknown[],
    options: TaskOptions & ActorOptions,
  ): Promise<Uint8Array[]> {
    const pickled = pickleOptions(options);
    const task = {
      ...fields,
      clientId: this.#session.clientId,
      ...(pickled ? { options: { pickledOptions: writePickle(pickled) } } : {}),
    };
    const ticket = await this.#session.data.task(task, encodeArguments(args, this.#writeReference));
    if (!ticket.valid) throw decodeException(ticket.error);
    return ticket.returnIds;
  }

  /** Ends an actor at once; with `restart` Ray starts it again as its maxRestarts say. @throws RayValueError when it was released */
  async kill(actor: ActorHandle, { restart = false }: { restart?: boolean } = {}): Promise<void> {
    this.#held.check(actor);
    await this.#terminate({ case: 'actor', value: { id: actor.id, noRestart: !restart } });
  }

  /** Cancels the task that makes an object; `force` ends its process. @throws RayValueError when the object was released */
  async cancel(ref: ObjectRef, { force = false }: { force?: boolean } = {}): Promise<void> {
    this.#held.check(ref);
    await this.#terminate({ case: 'taskObject', value: { id: ref.id, force, recursive: true } });
  }

  async #terminate(
    terminateType:
      | { case: 'actor'; value: { id: Uint8Array; noRestart: boolean } }
      | { case: 'taskObject'; value: { id: Uint8Array; force: boolean; recursive: boolean } },
  ): Promise<void> {
    const value = { clientId: this.#session.clientId, terminateType };
    await this.#session.data.request({ case: 'terminate', value }, 'terminate');
  }

  async namedActors({ allNamespaces = false } = {}): Promise<{ name: string; namespace: string }[]> {
    const { actorsJson } = await this.#session.data.request(
      { case: 'listNamedActors', value: { allNamespaces } },
      'listNamedActors',
    );
    const list: (string | { name: string; namespace: string })[] = JSON.parse(actorsJson);
    return list.map((item) => (typeof item === 'string' ? { name: item, namespace: '' } : item));
  }

  /** The cluster's nodes as Ray describes them: NodeID, Alive, NodeManagerAddress, Resources … */
  async nodes(): Promise<Record<string, unknown>[]> {
    const { responseType } = await this.#session.calls.call('clusterInfo', () => ({ type: InfoType.NODES }));
    return responseType.case === 'json' ? JSON.parse(responseType.value) : [];
  }

  clusterResources(): Promise<Record<string, number>> {
    return this.#resources(InfoType.CLUSTER_RESOURCES);
  }

  availableResources(): Promise<Record<string, number>> {
    return this.#resources(InfoType.AVAILABLE_RESOURCES);
  }

  async #resources(type: InfoType): Promise<Record<string, number>> {
    const { responseType } = await this.#session.calls.call('clusterInfo', () => ({ type }));
    return responseType.case === 'resourceTable' ? responseType.value.table : {};
  }

  /** Stores bytes in the cluster's KV store; whether there were some under the key already. */
  kvPut(key: string, value: Uint8Array, { overwrite = true } = {}): Promise<boolean> {
    return this.#session.kv.put(key, value, { overwrite });
  }

  kvGet(key: string): Promise<Uint8Array | undefined> {
    return this.#session.kv.get(key);
  }

  /** Deletes a key, or all that begin with it; how many there were. */
  kvDelete(key: string, { prefix = false } = {}): Promise<number> {
    return this.#session.kv.delete(key, { prefix });
  }

  /** Breaks the connection as a failing network would: what a test of reconnecting needs. */
  interrupt(): void {
    this.#session.interrupt();
  }

  /** Ends the session: what it holds in the cluster is freed, its actors end, detached ones stay. */
  close(): Promise<void> {
    return this.#session.close();
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
