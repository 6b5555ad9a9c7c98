/**
 * @file The workers of a pool, and their replacement. A worker that died is started anew: it gets the weights and moments of another,
 * repeats the dead one's micro-batches since the last update, and then what it was doing.
 */
import { InputError, RunError } from '@frame-thinker/core';
import { isDeath, isLoss, type WorkerError } from './errors.ts';
import { RemoteWorker } from './remote-worker.ts';
import type { PoolTransport, WorkerConnection } from './transport.ts';
import type { Capabilities, WorkerInit } from './types.ts';
import { type Watchdog, watch } from './watchdog.ts';

/** Deaths of one worker, with nothing done between them, that end the run. */
const MOST_DEATHS = 3;

const START_AGAIN = 'start the run again, it goes on from its checkpoint';

/** Version of a worker that holds the weights it started with. */
const NO_STATE = -1;

export interface PoolOptions {
  transport: PoolTransport;
  init: WorkerInit;
  workers: number;
  /** Told of deaths too. */
  watchdog?: Watchdog;
}

export interface Member {
  rank: number;
  remote: RemoteWorker;
  /** What filled its gradient sums since the last update. */
  micro: ((remote: RemoteWorker) => Promise<unknown>)[];
  /** Updates and given states that its weights have seen. */
  version: number;
  deaths: number;
  /** The replacement that is under way. */
  mending: Promise<void> | undefined;
}

/** What can't be started at the beginning of a run is the user's to mend: an address, a path, resources. */
function refuseUnstarted(error: unknown): never {
  if (isDeath(error) && error.type === 'not_started') throw new InputError(error.message);
  throw error;
}

export class Members {
  readonly all: readonly Member[];
  readonly #options: PoolOptions;
  readonly #free: Member[];
  readonly #waiting: { only: Member | undefined; take(member: Member): void }[] = [];
  readonly #timer: NodeJS.Timeout | undefined;
  /** Micro-batches given out since the last update. */
  #dealt = 0;
  #version = 0;
  /** Of the state that the transport keeps. */
  #keptVersion = 0;
  /** One state at a time is kept and given. */
  #giving: Promise<void> = Promise.resolve();
  /** No worker is started any more. */
  #closed = false;

  /** Starts the workers. */
  constructor(options: PoolOptions) {
    this.#options = options;
    this.all = Array.from({ length: options.workers }, (_, rank) => ({
      ...{ rank, remote: new RemoteWorker(options.transport.start(rank)) },
      ...{ micro: [], version: 0, deaths: 0, mending: undefined },
    }));
    this.#free = [...this.all];
    if (options.watchdog) {
      const { watchdog } = options;
      const connections = () => this.all.map(({ remote }) => remote.process);
      const looks = new WeakMap<WorkerConnection, number>();
      this.#timer = setInterval(() => watch(connections(), watchdog, looks), watchdog.quietMs);
      this.#timer.unref();
    }
  }

  /** Loads the model into each worker; one that dies of it is started again. @throws InputError when one can't be started */
  load(): Promise<Capabilities[]> {
    const { init } = this.#options;
    return Promise.all(
      this.all.map((member) =>
        this.run(
          member,
          (remote) => remote.init(init).catch(refuseUnstarted),
          () => this.#restart(member),
        ),
      ),
    );
  }

  async #restart(member: Member): Promise<void> {
    await member.remote.process.died;
    if (this.#closed) throw new RunError(`${member.remote.process.name} is not replaced: the pool is closed`);
    member.remote = new RemoteWorker(this.#options.transport.start(member.rank));
  }

  /** Waits for a worker that nobody uses: the next one, or `only` this one. */
  async withMember<T>(use: (member: Member) => Promise<T>, only?: Member): Promise<T> {
    const at = only ? this.#free.indexOf(only) : 0;
    const [free] = at < 0 ? [] : this.#free.splice(at, 1);
    const member = free ?? (await new Promise<Member>((take) => this.#waiting.push({ only, take })));
    try {
      return await use(member);
    } finally {
      const next = this.#waiting.findIndex((waiting) => !waiting.only || waiting.only === member);
      if (next < 0) this.#free.push(member);
      else this.#waiting.splice(next, 1)[0]!.take(member);
    }
  }

  /** The member that the next micro-batch is for: one after the other. */
  deal(): Member {
    return this.all[this.#dealt++ % this.all.length]!;
  }

  /** Runs a call until a worker lives through it. */
  async run<T>(member: Member, call: (remote: RemoteWorker) => Promise<T>, mend = () => this.mend(member)): Promise<T> {
    for (;;) {
      try {
        const result = await call(member.remote);
        member.deaths = 0;
        return result;
      } catch (error) {
        if (!isDeath(error) || this.#closed) throw error;
        this.count(member, error);
      }
      await mend();
    }
  }

  count(member: Member, error: unknown): void {
    member.deaths++;
    const { message } = error as WorkerError;
    if (member.deaths >= MOST_DEATHS)
      throw new RunError(
        `${message}\n${member.remote.process.name} died ${member.deaths} times with nothing done between`,
      );
    this.#options.watchdog?.warn(`${message}\nit is replaced`);
  }

  /** Replaces a dead worker by one that is as it was before its call. */
  mend(member: Member): Promise<void> {
    member.mending ??= this.replace(member).finally(() => {
      member.mending = undefined;
    });
    return member.mending;
  }

  async replace(member: Member, { withState = true } = {}): Promise<void> {
    const { init } = this.#options;
    for (;;) {
      // Nobody's state is taken from it before it has it.
      member.version = NO_STATE;
      await this.#restart(member);
      try {
        await member.remote.init(init);
        if (!withState) return;
        if (this.#version > 0) await this.#giveState(member);
        member.version = this.#version;
        for (const call of member.micro) await call(member.remote);
        return;
      } catch (error) {
        if (!isDeath(error) || !member.remote.process.dead || this.#closed) throw error;
        this.count(member, error);
      }
    }
  }

  #giveState(member: Member): Promise<void> {
    const given = this.#giving.then(() => this.#giveStateNow(member));
    this.#giving = given.catch(() => {});
    return given;
  }

  /** Weights and moments of a living worker, or those that were kept. */
  async #giveStateNow(member: Member): Promise<void> {
    const { transport } = this.#options;
    for (const other of this.all) {
      if (this.#keptVersion === this.#version) break;
      if (other === member || other.version !== this.#version || other.remote.process.dead) continue;
      try {
        await this.#keepState(other);
      } catch (error) {
        if (!isDeath(error)) throw error;
      }
    }
    if (this.#keptVersion !== this.#version)
      throw new RunError(`all workers died, and their weights with them: ${START_AGAIN}`);
    try {
      await transport.restoreState(member.remote.process);
    } catch (error) {
      if (!isLoss(error)) throw error;
      throw new RunError(`the weights that were kept are lost (${error.message}): ${START_AGAIN}`);
    }
  }

  async #keepState({ remote }: Member): Promise<void> {
    const version = this.#version;
    await this.#options.transport.keepState(remote.process);
    this.#keptVersion = version;
  }

  /** All weights are new: what sums were made of is over. */
  async renewed(members: readonly Member[]): Promise<void> {
    this.#version++;
    for (const member of members) member.version = this.#version;
    this.forgetSums();
    // One worker alone has nobody to get its state from.
    if (this.all.length === 1) await this.run(members[0]!, () => this.#keepState(members[0]!));
  }

  forgetSums(): void {
    this.#dealt = 0;
    for (const member of this.all) member.micro = [];
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await Promise.all(this.all.map(({ remote }) => remote.process.close()));
    await this.#options.transport.close();
  }
}
