/**
 * @file A pool of workers behind any transport, seen as one PolicyWorker. Each worker holds all weights. Rollout groups go to
 * the next free worker, micro-batches to one after the other, and every worker applies the same update.
 */
import { writeActorShards } from '@frame-thinker/checkpoint';
import {
  type AdamWOptions,
  type Cotangents,
  type Group,
  InvariantError,
  type LogProbs,
  type SamplingOptions,
  type Trajectory,
  type UpdateResult,
} from '@frame-thinker/core';
import { isDeath, Members, type PoolOptions } from './members.ts';
import { RemoteWorker } from './remote-worker.ts';
import { sharedRollout } from './shared-rollout.ts';
import { actorTensors, readState } from './state-folder.ts';
import type {
  Capabilities,
  CriticWorker,
  ForwardOptions,
  Health,
  PolicyWorker,
  ScoreOptions,
  WeightsState,
  WorkerBatch,
} from './types.ts';

export type { PoolOptions } from './members.ts';

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

class Pool implements PolicyWorker, CriticWorker {
  readonly capabilities: Capabilities;
  readonly #options: PoolOptions;
  readonly #members: Members;

  constructor(remotes: readonly RemoteWorker[], capabilities: Capabilities, options: PoolOptions) {
    this.capabilities = capabilities;
    this.#options = options;
    this.#members = new Members(remotes, options);
  }

  forward(batch: WorkerBatch, options: ForwardOptions): Promise<LogProbs> {
    return this.#members.withMember((member) => this.#members.run(member, (remote) => remote.forward(batch, options)));
  }

  values(batch: WorkerBatch): Promise<Float32Array[]> {
    return this.#members.withMember((member) => this.#members.run(member, (remote) => remote.values(batch)));
  }

  backward(batch: WorkerBatch, cotangents: Cotangents, options: ScoreOptions): Promise<LogProbs> {
    return this.#accumulate((remote) => remote.backward(batch, cotangents, options));
  }

  backwardValues(batch: WorkerBatch, dValues: readonly Float32Array[]): Promise<Float32Array[]> {
    return this.#accumulate((remote) => remote.backwardValues(batch, dValues));
  }

  /** Dealt in the order of the calls, not to the next free worker: so the sums never depend on who was fast, in their last bits either. */
  #accumulate<T>(call: (remote: RemoteWorker) => Promise<T>): Promise<T> {
    return this.#members.withMember(async (member) => {
      const result = await this.#members.run(member, call);
      member.micro.push(call);
      return result;
    }, this.#members.deal());
  }

  async applyUpdate(options: AdamWOptions): Promise<UpdateResult> {
    const { transport } = this.#options;
    for (;;) {
      if (this.#members.all.length > 1) await this.#collect();
      const tried = await Promise.allSettled(
        this.#members.all.map(async ({ remote }) => {
          if (this.#members.all.length > 1) await transport.spreadGradients(remote.process);
          return remote.applyUpdate(options);
        }),
      );
      for (const one of tried) if (one.status === 'rejected' && !isDeath(one.reason)) throw one.reason;
      const applied = this.#members.all.filter((_, i) => tried[i]!.status === 'fulfilled');
      for (const [i, one] of tried.entries())
        if (one.status === 'rejected') this.#members.count(this.#members.all[i]!, one.reason);
      if (applied.length > 0) await this.#members.renewed(applied);
      await Promise.all(
        this.#members.all.filter((member) => !applied.includes(member)).map((member) => this.#members.mend(member)),
      );
      const results = tried.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      if (results.length > 0) return sameResult(results);
    }
  }

  async #collect(): Promise<void> {
    for (;;) {
      const dead = this.#members.all.filter(({ remote }) => remote.process.dead);
      for (const member of dead)
        this.#members.count(member, await member.remote.health().catch((error: unknown) => error));
      await Promise.all(dead.map((member) => this.#members.mend(member)));
      try {
        return await this.#options.transport.collectGradients(this.#members.all.map(({ remote }) => remote.process));
      } catch (error) {
        if (!isDeath(error) || this.#members.all.every(({ remote }) => !remote.process.dead)) throw error;
      }
    }
  }

  async zeroGradients(): Promise<void> {
    this.#members.forgetSums();
    await Promise.all(this.#members.all.map((member) => this.#members.run(member, (remote) => remote.zeroGradients())));
  }

  rollout(groups: readonly Group[], sampling: SamplingOptions): AsyncGenerator<Trajectory[]> {
    const slots = this.#options.init.rollout?.slots ?? 1;
    return sharedRollout({ members: this.#members, groups, sampling, slots });
  }

  weightsOut(): Promise<WeightsState> {
    return this.#members.run(this.#members.all[0]!, (remote) => remote.weightsOut());
  }

  weightsIn(state: WeightsState): Promise<void> {
    return this.#renew((remote) => remote.weightsIn(state));
  }

  async #renew(give: (remote: RemoteWorker) => Promise<void>): Promise<void> {
    await Promise.all(
      this.#members.all.map((member) =>
        this.#members.run(member, give, () => this.#members.replace(member, { withState: false })),
      ),
    );
    await this.#members.renewed(this.#members.all);
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
        this.#members.run(this.#members.all[rank % this.#members.all.length]!, (remote) =>
          remote.save(directory, { rank, worldSize }),
        ),
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
    return this.#members.run(this.#members.all[0]!, (remote) => remote.exportTo(directory));
  }

  health(): Promise<Health> {
    return this.#members.run(this.#members.all[0]!, (remote) => remote.health());
  }

  close(): Promise<void> {
    return this.#members.close();
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
