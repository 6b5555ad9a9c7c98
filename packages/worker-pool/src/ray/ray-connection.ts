/**
 * @file A worker process on a Ray node, behind its shim actor. Frames go out by `send`, everything comes back by `receive`, of which
 * one call is always waiting. Kept answers stay in the cluster as objects.
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
} from '@frame-thinker/ray-client';
import { CallBook, type OnPartial } from '../call-book.ts';
import { decodeReply, encodeFrame, FrameSplitter, type JsonObject, type Reply } from '../frames.ts';
import type { Answer, WorkerConnection } from '../transport.ts';

/** How long one `receive` waits for news. */
const RECEIVE_SECONDS = 5;
/** How long a worker may take to end after its stdin was closed. */
const CLOSE_MS = 5_000;

export interface RayConnectionOptions {
  client: RayClient;
  name: string;
  logFile?: string | undefined;
  createActor(): Promise<ActorHandle>;
  /** How long actor and worker may take to start, and what to look at when they don't. */
  startSeconds: number;
  notStarted(): Promise<string>;
}

interface News {
  frames: Uint8Array;
  log: Uint8Array;
  died: string | null;
}

/** An answer that stays in the cluster, until it is released. */
export interface KeptAnswer {
  readonly frames: ObjectRef;
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

  /** A call whose answer stays in the cluster. @throws as `call` */
  keep(method: string): Promise<KeptAnswer> {
    return this.#keep(method, (id) => ['keep', id, Buffer.concat(encodeFrame({ v: 1, id, method, params: {} }))]);
  }

  /**
   * The same with an answer that was kept for its request: each partial frame becomes a call of `methods.partial`, the last one of
   * `methods.last`, with its params and tensors. @throws as `call`
   */
  give(kept: KeptAnswer, methods: { partial?: string; last: string }): Promise<KeptAnswer> {
    const names = [methods.partial ?? methods.last, methods.last];
    return this.#keep(methods.last, (id) => ['give', id, kept.frames, names]);
  }

  async #keep(method: string, task: (id: number) => [name: string, ...args: unknown[]]): Promise<KeptAnswer> {
    const { id, answer } = this.#book.add(method);
    answer.catch(() => {});
    if (this.dead) await answer;
    const [name, ...args] = task(id);
    const [told, frames] = await this.#remote(name, args);
    try {
      this.#settleTold(id, await this.#told(told!));
      await answer;
      return { frames: frames! };
    } catch (error) {
      this.#options.client.releaseSoon(frames!);
      throw error;
    }
  }

  /** Schedules a method of two results after all sends before it. */
  async #remote(method: string, args: readonly unknown[]): Promise<ObjectRef[]> {
    try {
      await this.#lastSend;
      const actor = await this.#started;
      return await actor.remoteAll(method, args, { numReturns: 2 });
    } catch (error) {
      this.#lose(error);
      await this.died;
      throw error;
    }
  }

  async #told(ref: ObjectRef): Promise<unknown> {
    try {
      return await this.#options.client.get(ref);
    } catch (error) {
      if (isDeath(error)) this.#lose(error);
      throw error;
    } finally {
      this.#options.client.releaseSoon(ref);
    }
  }

  /** A reply without tensors, as the shim tells it; null when the worker died before it answered. */
  #settleTold(id: number, told: unknown): void {
    // How it died comes with the news.
    if (typeof told === 'string' && !this.dead)
      this.#book.settle({ call: { ...(JSON.parse(told) as Reply), id }, tensors: new Map() });
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
      const { error, pid, address, node } = told as Record<string, string | number>;
      if (error !== undefined) throw new Error(String(error));
      this.#where = `pid ${pid} on node ${address} (${String(node).slice(0, 8)})`;
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
      this.#book.die(`could not be started: ${messageOf(error)}`, { quiet: true });
      return;
    }
    const splitter = new FrameSplitter();
    const text = new StringDecoder('utf8');
    try {
      for (let ended = false; !ended; ) {
        const { frames, log, died } = (await actor.call('receive', [RECEIVE_SECONDS])) as News;
        this.#book.keepLog(text.write(Buffer.from(log)));
        if (!this.dead) this.#take(splitter, frames);
        if (died !== null) this.#book.die(this.#closing ? 'was closed' : died, { quiet: this.#closing });
        ended = died !== null;
      }
    } catch (error) {
      this.#lose(error);
    }
    await this.#options.client.kill(actor).catch(() => {});
    this.#options.client.releaseSoon(actor);
  }

  #take(splitter: FrameSplitter, bytes: Uint8Array): void {
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
