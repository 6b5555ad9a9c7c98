/**
 * @file A pool of workers behind any transport, seen as one PolicyWorker. Each worker holds all weights. Rollout groups go to
 * the next free worker, micro-batches to one after the other. A worker that dies is replaced: the new one gets the weights and moments of another,
 * repeats the dead one's micro-batches since the last update, and then what it was doing.
 */
import { writeActorShards } from '@frame-thinker/checkpoint';
import {
  type AdamWOptions,
  type Cotangents,
  type Group,
  InvariantError,
  type LogProbs,
  RunError,
  type SamplingOptions,
  type Trajectory,
  type UpdateResult,
} from '@frame-thinker/core';
import { WorkerError } from './errors.ts';
import { RemoteWorker } from './remote-worker.ts';
import { actorTensors, readState } from './state-folder.ts';
import type { PoolTransport } from './transport.ts';
import type {
  Capabilities,
  CriticWorker,
  ForwardOptions,
  Health,
  PolicyWorker,
  ScoreOptions,
  WeightsState,
  WorkerBatch,
  WorkerInit,
} from './types.ts';

/** Deaths of one worker, with nothing done between them, that end the run. */
const MOST_DEATHS = 3;

/** Version of a worker that holds the weights it started with. */
const NO_STATE = -1;

export interface PoolOptions {
  transport: PoolTransport;
  init: WorkerInit;
  workers: number;
  /** Told of deaths, and of calls that nothing was heard of for `quietMs`; after `hungMs` their worker is ended. */
  watchdog?: { quietMs: number; hungMs: number; warn(message: string): void };
}

type Remote = RemoteWorker;

interface Member {
  rank: number;
  remote: Remote;
  /** What filled its gradient sums since the last update. */
  micro: ((remote: Remote) => Promise<unknown>)[];
  /** Updates and given states that its weights have seen. */
  version: number;
  deaths: number;
  /** The replacement that is under way. */
  mending: Promise<void> | undefined;
}

/**
 * Starts the workers and loads the model into each. Closing the pool closes the transport.
 * @throws WorkerError when a worker can't start; the transport is closed then
 */
export async function createPool(options: PoolOptions): Promise<PolicyWorker & CriticWorker> {
  const { transport, init, workers } = options;
  const remotes = Array.from({ length: workers }, (_, rank) => new RemoteWorker(transport.start(rank)));
  try {
    const capabilities = await Promise.all(remotes.map((remote) => remote.init(init)));
    transport.expect?.({ parameters: capabilities[0]!.parameters, workers });
    return new Pool(remotes, capabilities[0]!, options);
  } catch (error) {
    await Promise.all(remotes.map(({ process }) => process.close()));
    await transport.close();
    throw error;
  }
}

const isDeath = (error: unknown): boolean => error instanceof WorkerError && error.type === 'died';

class Pool implements PolicyWorker, CriticWorker {
  readonly capabilities: Capabilities;
  readonly #options: PoolOptions;
  readonly #members: readonly Member[];
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

  constructor(remotes: readonly Remote[], capabilities: Capabilities, options: PoolOptions) {
    this.capabilities = capabilities;
    this.#options = options;
    this.#members = remotes.map((remote, rank) => ({
      ...{ rank, remote, micro: [], version: 0, deaths: 0, mending: undefined },
    }));
    this.#free = [...this.#members];
    if (options.watchdog) {
      this.#timer = setInterval(() => this.#watch(), options.watchdog.quietMs);
      this.#timer.unref();
    }
  }

  #watch(): void {
    const { quietMs, hungMs, warn } = this.#options.watchdog!;
    for (const { remote } of this.#members) {
      const { process: worker } = remote;
      const call = worker.oldestCall();
      if (!call || call.quietMs < quietMs) continue;
      const what = `${worker.name} (${worker.where}) has been in ${call.method} for ${Math.round(call.ms / 1000)} s`;
      const hangs = call.quietMs >= hungMs;
      warn(hangs ? `${what}: it is ended` : what);
      if (hangs) void worker.kill('hung');
    }
  }

  /** Waits for a worker that nobody uses: the next one, or `only` this one. */
  async #withMember<T>(use: (member: Member) => Promise<T>, only?: Member): Promise<T> {
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

  /** Runs a call until a worker lives through it. */
  async #run<T>(member: Member, call: (remote: Remote) => Promise<T>, mend = () => this.#mend(member)): Promise<T> {
    for (;;) {
      try {
        const result = await call(member.remote);
        member.deaths = 0;
        return result;
      } catch (error) {
        if (!isDeath(error) || this.#closed) throw error;
        this.#count(member, error);
      }
      await mend();
    }
  }

  #count(member: Member, error: unknown): void {
    member.deaths++;
    const { message } = error as WorkerError;
    if (member.deaths >= MOST_DEATHS)
      throw new RunError(
        `${message}\n${member.remote.process.name} died ${member.deaths} times with nothing done between`,
      );
    this.#options.watchdog?.warn(`${message}\nit is replaced`);
  }

  /** Replaces a dead worker by one that is as it was before its call. */
  #mend(member: Member): Promise<void> {
    member.mending ??= this.#replace(member).finally(() => {
      member.mending = undefined;
    });
    return member.mending;
  }

  async #replace(member: Member, { withState = true } = {}): Promise<void> {
    const { transport, init } = this.#options;
    for (;;) {
      await member.remote.process.died;
      if (this.#closed) throw new RunError(`${member.remote.process.name} is not replaced: the pool is closed`);
      // Nobody's state is taken from it before it has it.
      member.version = NO_STATE;
      member.remote = new RemoteWorker(transport.start(member.rank));
      try {
        await member.remote.init(init);
        if (!withState) return;
        if (this.#version > 0) await this.#giveState(member);
        member.version = this.#version;
        for (const call of member.micro) await call(member.remote);
        return;
      } catch (error) {
        if (!isDeath(error) || !member.remote.process.dead || this.#closed) throw error;
        this.#count(member, error);
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
    for (const other of this.#members) {
      if (this.#keptVersion === this.#version) break;
      if (other === member || other.version !== this.#version || other.remote.process.dead) continue;
      try {
        await this.#keepState(other);
      } catch (error) {
        if (!isDeath(error)) throw error;
      }
    }
    if (this.#keptVersion !== this.#version)
      throw new RunError(
        'all workers died, and their weights with them: start the run again, it goes on from its checkpoint',
      );
    await transport.restoreState(member.remote.process);
  }

  async #keepState({ remote }: Member): Promise<void> {
    const version = this.#version;
    await this.#options.transport.keepState(remote.process);
    this.#keptVersion = version;
  }

  /** All weights are new: what sums were made of is over. */
  async #renewed(members: readonly Member[]): Promise<void> {
    this.#version++;
    for (const member of members) member.version = this.#version;
    this.#forgetSums();
    // One worker alone has nobody to get its state from.
    if (this.#members.length === 1) await this.#run(members[0]!, () => this.#keepState(members[0]!));
  }

  forward(batch: WorkerBatch, options: ForwardOptions): Promise<LogProbs> {
    return this.#withMember((member) => this.#run(member, (remote) => remote.forward(batch, options)));
  }

  values(batch: WorkerBatch): Promise<Float32Array[]> {
    return this.#withMember((member) => this.#run(member, (remote) => remote.values(batch)));
  }

  backward(batch: WorkerBatch, cotangents: Cotangents, options: ScoreOptions): Promise<LogProbs> {
    return this.#accumulate((remote) => remote.backward(batch, cotangents, options));
  }

  backwardValues(batch: WorkerBatch, dValues: readonly Float32Array[]): Promise<Float32Array[]> {
    return this.#accumulate((remote) => remote.backwardValues(batch, dValues));
  }

  /** Dealt in the order of the calls, not to the next free worker: so the sums never depend on who was fast, in their last bits either. */
  #accumulate<T>(call: (remote: Remote) => Promise<T>): Promise<T> {
    return this.#withMember(
      async (member) => {
        const result = await this.#run(member, call);
        member.micro.push(call);
        return result;
      },
      this.#members[this.#dealt++ % this.#members.length],
    );
  }

  async applyUpdate(options: AdamWOptions): Promise<UpdateResult> {
    const { transport } = this.#options;
    for (;;) {
      if (this.#members.length > 1) await this.#collect();
      const tried = await Promise.allSettled(
        this.#members.map(async ({ remote }) => {
          if (this.#members.length > 1) await transport.spreadGradients(remote.process);
          return remote.applyUpdate(options);
        }),
      );
      for (const one of tried) if (one.status === 'rejected' && !isDeath(one.reason)) throw one.reason;
      const applied = this.#members.filter((_, i) => tried[i]!.status === 'fulfilled');
      for (const [i, one] of tried.entries()) if (one.status === 'rejected') this.#count(this.#members[i]!, one.reason);
      if (applied.length > 0) await this.#renewed(applied);
      await Promise.all(
        this.#members.filter((member) => !applied.includes(member)).map((member) => this.#mend(member)),
      );
      const results = tried.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      if (results.length > 0) return sameResult(results);
    }
  }

  async #collect(): Promise<void> {
    for (;;) {
      const dead = this.#members.filter(({ remote }) => remote.process.dead);
      for (const member of dead) this.#count(member, await member.remote.health().catch((error: unknown) => error));
      await Promise.all(dead.map((member) => this.#mend(member)));
      try {
        return await this.#options.transport.collectGradients(this.#members.map(({ remote }) => remote.process));
      } catch (error) {
        if (!isDeath(error) || this.#members.every(({ remote }) => !remote.process.dead)) throw error;
      }
    }
  }

  #forgetSums(): void {
    this.#dealt = 0;
    for (const member of this.#members) member.micro = [];
  }

  async zeroGradients(): Promise<void> {
    this.#forgetSums();
    await Promise.all(this.#members.map((member) => this.#run(member, (remote) => remote.zeroGradients())));
  }

  async *rollout(groups: readonly Group[], sampling: SamplingOptions): AsyncGenerator<Trajectory[]> {
    const queue: Trajectory[][] = [];
    let wake = (): void => {};
    let failure: unknown;
    const jobs = this.#shares(groups).map((share) =>
      this.#withMember((member) => {
        const done = new Set<number>();
        return this.#run(member, (remote) => {
          const left = share.map((_, i) => i).filter((i) => !done.has(i));
          const told = (group: number, trajectories: Trajectory[]): void => {
            done.add(left[group]!);
            queue.push(trajectories);
            wake();
          };
          if (left.length === 0) return Promise.resolve();
          return remote.rollout(
            left.map((i) => share[i]!),
            sampling,
            told,
          );
        });
      }),
    );
    let running = jobs.length;
    for (const job of jobs)
      job
        .catch((error: unknown) => {
          failure ??= error;
        })
        .finally(() => {
          running--;
          wake();
        });
    let given = 0;
    while (given < groups.length) {
      if (queue.length > 0) {
        given++;
        yield queue.shift()!;
        continue;
      }
      if (failure !== undefined) throw failure;
      if (running === 0)
        throw new RunError(`the workers finished ${given} of ${groups.length} groups and said nothing of the others`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    await Promise.all(jobs);
  }

  /** With one worker everything is one share; with more, shares fill the slots, so that the slowest worker is not left with much. */
  #shares(groups: readonly Group[]): Group[][] {
    if (this.#members.length === 1) return groups.length > 0 ? [[...groups]] : [];
    const slots = this.#options.init.rollout?.slots ?? 1;
    const shares: Group[][] = [];
    let rows = Number.POSITIVE_INFINITY;
    for (const group of groups) {
      if (rows + group.n > slots) {
        shares.push([]);
        rows = 0;
      }
      shares.at(-1)!.push(group);
      rows += group.n;
    }
    return shares;
  }

  weightsOut(): Promise<WeightsState> {
    return this.#run(this.#members[0]!, (remote) => remote.weightsOut());
  }

  weightsIn(state: WeightsState): Promise<void> {
    return this.#renew((remote) => remote.weightsIn(state));
  }

  async #renew(give: (remote: Remote) => Promise<void>): Promise<void> {
    await Promise.all(
      this.#members.map((member) => this.#run(member, give, () => this.#replace(member, { withState: false }))),
    );
    await this.#renewed(this.#members);
  }

  /** Each worker writes its own shards, all at the same time; where they don't share files, the controller writes what one tells it. */
  async saveTo(directory: string, { worldSize }: { worldSize: number }): Promise<number> {
    if (!this.#options.transport.sharesFiles) {
      const state = await this.weightsOut();
      await writeActorShards({ dir: directory, worldSize, ...actorTensors(state) });
      return state.step;
    }
    const steps = await Promise.all(
      Array.from({ length: worldSize }, (_, rank) =>
        this.#run(this.#members[rank % this.#members.length]!, (remote) => remote.save(directory, { rank, worldSize })),
      ),
    );
    if (new Set(steps).size !== 1) throw new InvariantError(`the workers are at different steps: ${steps.join(', ')}`);
    return steps[0]!;
  }

  async loadFrom(directory: string, options: { step: number }): Promise<void> {
    if (this.#options.transport.sharesFiles) await this.#renew((remote) => remote.load(directory, options));
    else await this.weightsIn(readState(directory, options.step));
  }

  exportTo(directory: string): Promise<void> {
    return this.#run(this.#members[0]!, (remote) => remote.exportTo(directory));
  }

  health(): Promise<Health> {
    return this.#run(this.#members[0]!, (remote) => remote.health());
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await Promise.all(this.#members.map(({ remote }) => remote.process.close()));
    await this.#options.transport.close();
  }
}

function sameResult([first, ...others]: readonly UpdateResult[]): UpdateResult {
  for (const other of others)
    if (!Object.is(other.gradNorm, first!.gradNorm) || other.applied !== first!.applied)
      throw new InvariantError(
        `the workers applied different updates: gradient norms ${[first!, ...others].map((r) => r.gradNorm).join(', ')}`,
      );
  return first!;
}
