/**
 * @file A worker process on a Ray node, behind its shim actor. Frames go out by `send`, everything comes back by `receive`, of which
 * one call is always waiting. Files of its node become objects of the cluster, and the reverse.
 */
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TensorData } from '@frame-thinker/checkpoint';
import { messageOf } from '@frame-thinker/core';
import {
  type ActorHandle,
  type ObjectRef,
  RayActorDiedError,
  RayActorUnavailableError,
  type RayClient,
  RayConnectionError,
  RayObjectLostError,
} from '@frame-thinker/ray-client';
import { CallBook, type OnPartial } from '../call-book.ts';
import { decodeReply, encodeFrame, FrameSplitter, type JsonObject, type Reply } from '../frames.ts';
import type { Answer, WorkerConnection } from '../transport.ts';

/** How long one `receive` waits for news. */
const RECEIVE_SECONDS = 5;
/** How long a worker may take to end after its stdin was closed. */
const CLOSE_MS = 5_000;
/** How long after a failed task of its shim a worker's death may still be told. */
const DEATH_MS = 5_000;

export interface RayConnectionOptions {
  client: RayClient;
  name: string;
  logFile?: string | undefined;
  createActor(): Promise<ActorHandle>;
  /** How long actor and worker may take to start, and what to look at when they don't. */
  startSeconds: number;
  notStarted(): Promise<string>;
  warn?: ((line: string) => void) | undefined;
}

interface News {
  replies: Uint8Array;
  log: Uint8Array;
  died: string | null;
}

/** How the shim answers `start`. */
interface Started {
  error?: string;
  pid: number;
  node: string;
  address: string;
  /** Of this worker alone, and removed with it: one in the node's shared memory, one in its temporary folder; bytes that are free there. */
  folders: [string, string];
  free: [number, number];
}

export class RayConnection implements WorkerConnection {
  readonly name: string;
  readonly died: Promise<void>;
  readonly #options: RayConnectionOptions;
  readonly #book: CallBook;
  readonly #started: Promise<ActorHandle>;
  /** Sends follow each other: tasks of one actor may overtake others whose arguments are large. */
  #lastSend: Promise<unknown>;
  #where = 'not started yet';
  #place: Started | undefined;
  #told = false;
  #closing = false;

  constructor(options: RayConnectionOptions) {
    this.name = options.name;
    this.#options = options;
    this.#book = new CallBook(options);
    this.#started = this.#start();
    this.#lastSend = this.#started;
    this.died = this.#run();
  }

  get where(): string {
    return this.#where;
  }

  get dead(): boolean {
    return this.#book.dead;
  }

  oldestCall(): { method: string; ms: number; quietMs: number } | undefined {
    return this.#book.oldestCall();
  }

  async call(
    method: string,
    params: JsonObject = {},
    tensors: Iterable<readonly [string, TensorData]> = [],
    onPartial?: OnPartial,
  ): Promise<Answer> {
    const { id, answer } = this.#book.add(method, onPartial);
    if (!this.dead)
      this.#send('send', [Buffer.concat(encodeFrame({ v: 1, id, method, params }, tensors))]).catch(this.#lose);
    return answer;
  }

  /** A folder of this worker's on its node, in shared memory where `bytes` are free there. @throws as `call` */
  folder(bytes: number): Promise<string> {
    return this.#task('folder', async () => {
      const [shared, temporary] = this.#place!.folders;
      const free = this.#place!.free[0];
      if (free >= bytes) return shared;
      const mib = (size: number): string => `${Math.ceil(size / 2 ** 20)} MiB`;
      if (!this.#told)
        this.#options.warn?.(
          `${this.name}: its node's shared memory has ${mib(free)} free, ${mib(bytes)} are needed: bulk data go to ${temporary}`,
        );
      this.#told = true;
      return temporary;
    });
  }

  /** Turns files of the worker's node into objects of the cluster, to be released by the caller. @throws as `call` */
  take(paths: readonly string[]): Promise<ObjectRef[]> {
    return this.#task('take', async (actor) => {
      const refs = await actor.remoteAll('take', [paths], { numReturns: paths.length + 1 });
      const done = refs.pop()!;
      try {
        await this.#options.client.get(done);
        return refs;
      } catch (error) {
        this.#options.client.releaseSoon(...refs);
        throw error;
      } finally {
        this.#options.client.releaseSoon(done);
      }
    });
  }

  /** Turns objects of the cluster into files of the worker's node. @throws as `call` */
  put(paths: readonly string[], refs: readonly ObjectRef[]): Promise<void> {
    return this.#task('put', async (actor) => void (await actor.call('put', [paths, ...refs])));
  }

  /** Removes files of the worker's node. @throws as `call` */
  remove(paths: readonly string[]): Promise<void> {
    return this.#task('remove', async (actor) => void (await actor.call('remove', [paths])));
  }

  /** What the shim does itself, as a call like those of its worker: the watchdog sees it, and a death rejects it. */
  async #task<T>(name: string, work: (actor: ActorHandle) => Promise<T>): Promise<T> {
    const { id, answer } = this.#book.add(name);
    answer.catch(() => {});
    const settle = (reply: Pick<Reply, 'result'> | Pick<Reply, 'error'>): void => {
      if (!this.dead) this.#book.settle({ call: { v: 1, id, ms: 0, ...reply }, tensors: new Map() });
    };
    if (this.dead) await answer;
    let value: T | undefined;
    try {
      value = await work(await this.#started);
      settle({ result: {} });
    } catch (error) {
      if (isDeath(error)) this.#lose(error);
      // The files of a worker go with it, and its death may be told a moment later.
      else await Promise.race([this.died, sleep(DEATH_MS, undefined, { ref: false })]);
      const type = error instanceof RayObjectLostError ? 'lost' : 'Error';
      settle({ error: { type, message: messageOf(error), trace: '' } });
    }
    await answer;
    return value as T;
  }

  #send(method: string, args: readonly unknown[]): Promise<unknown> {
    this.#lastSend = this.#lastSend.then(async () => (await this.#started).call(method, args));
    return this.#lastSend;
  }

  async #start(): Promise<ActorHandle> {
    const { startSeconds, createActor, notStarted } = this.#options;
    const actor = await createActor();
    const late = new AbortController();
    try {
      const told = await Promise.race([
        actor.call('start'),
        sleep(startSeconds * 1000, undefined, { signal: late.signal, ref: false }),
      ]);
      if (told === undefined) throw new Error(`after ${startSeconds} s it had not started: ${await notStarted()}`);
      const place = told as Started;
      if (place.error !== undefined) throw new Error(place.error);
      this.#place = place;
      this.#where = `pid ${place.pid} on node ${place.address} (${place.node.slice(0, 8)})`;
      return actor;
    } catch (error) {
      await this.#options.client.kill(actor).catch(() => {});
      throw error;
    } finally {
      late.abort();
    }
  }

  readonly #lose = (error: unknown): void => {
    const [first = ''] = messageOf(error).split('\n');
    if (error instanceof RayActorDiedError)
      this.#book.die(this.#closing ? 'was closed' : `died with its actor (${first})`);
    else if (error instanceof RayActorUnavailableError) this.#book.die(`is out of reach (${first})`);
    else if (error instanceof RayConnectionError)
      this.#book.die(`is out of reach: the session with Ray ended (${first})`);
    else this.#book.die(`could not be reached: ${messageOf(error)}`);
  };

  /** Takes news until the worker is dead; resolves when nothing is left of it. */
  async #run(): Promise<void> {
    let actor: ActorHandle;
    try {
      actor = await this.#started;
    } catch (error) {
      this.#book.die(`could not be started: ${messageOf(error)}`, { quiet: true, type: 'not_started' });
      return;
    }
    const splitter = new FrameSplitter();
    const text = new StringDecoder('utf8');
    try {
      for (let ended = false; !ended; ) {
        const { replies, log, died } = (await actor.call('receive', [RECEIVE_SECONDS])) as News;
        this.#book.keepLog(text.write(Buffer.from(log)));
        if (!this.dead) this.#settle(splitter, replies);
        if (died !== null) this.#book.die(this.#closing ? 'was closed' : died, { quiet: this.#closing });
        ended = died !== null;
      }
    } catch (error) {
      this.#lose(error);
    }
    await this.#options.client.kill(actor).catch(() => {});
    this.#options.client.releaseSoon(actor);
  }

  #settle(splitter: FrameSplitter, bytes: Uint8Array): void {
    try {
      for (const body of splitter.push(bytes)) this.#book.settle(decodeReply(body));
    } catch (error) {
      void this.kill(`answered with a frame that cannot be read: ${messageOf(error)}`);
    }
  }

  async kill(reason: string): Promise<void> {
    this.#book.die(reason);
    const actor = await this.#started.catch(() => undefined);
    // The waiting `receive` then fails.
    if (actor) await this.#options.client.kill(actor).catch(() => {});
    await this.died;
  }

  async close(): Promise<void> {
    await this.#end();
    await this.#book.logWritten;
  }

  async #end(): Promise<void> {
    if (this.dead) return this.died;
    this.#closing = true;
    const late = new AbortController();
    const ends = this.#started.then(() => this.#send('close', []));
    ends.catch(this.#lose);
    const timer = sleep(CLOSE_MS, 'late', { signal: late.signal }).catch(() => 'ended');
    if ((await Promise.race([this.died, timer])) === 'late') await this.kill('was closed');
    late.abort();
    await this.died;
  }
}

const isDeath = (error: unknown): boolean =>
  error instanceof RayActorDiedError ||
  error instanceof RayActorUnavailableError ||
  error instanceof RayConnectionError;
