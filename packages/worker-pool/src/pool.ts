/**
 * @file A pool of workers behind any transport, seen as one PolicyWorker. Each worker holds all weights. Rollout groups go to
 * the next free worker, micro-batches to one after the other, and every worker applies the same update.
 */
import { mkdirSync } from 'node:fs';
import {
  type AdamWOptions,
  type Cotangents,
  type Group,
  InputError,
  InvariantError,
  type LogProbs,
  type SamplingOptions,
  type Trajectory,
  type UpdateResult,
} from '@frame-thinker/core';
import { isDeath, isLoss } from './errors.ts';
import { Members, type PoolOptions } from './members.ts';
import type { RemoteWorker } from './remote-worker.ts';
import { sharedRollout } from './shared-rollout.ts';
import type {
  Capabilities,
  CriticWorker,
  ForwardOptions,
  Health,
  PolicyWorker,
  ScoreOptions,
  WorkerBatch,
} from './types.ts';

export type { PoolOptions } from './members.ts';

/**
 * Starts the workers and loads the model into each. Closing the pool closes the transport.
 * @throws WorkerError when a worker can't start; the transport is closed then
 */
export async function createPool(options: PoolOptions): Promise<PolicyWorker & CriticWorker> {
  const { transport, workers } = options;
  const members = new Members(options);
  try {
    const [capabilities] = await members.load();
    const { parameters, methods } = capabilities!;
    if (workers > 1 && options.init.training !== false && !methods.includes('gradients_add'))
      throw new InputError('the worker program has no method gradients_add, which several workers need');
    transport.expect?.({ parameters, workers });
    return new Pool(members, capabilities!, options);
  } catch (error) {
    await members.close();
    throw error;
  }
}

class Pool implements PolicyWorker, CriticWorker {
  readonly capabilities: Capabilities;
  readonly #options: PoolOptions;
  readonly #members: Members;

  constructor(members: Members, capabilities: Capabilities, options: PoolOptions) {
    this.capabilities = capabilities;
    this.#options = options;
    this.#members = members;
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
      const failed = this.#members.all.flatMap((member, i) => {
        const one = tried[i]!;
        return one.status === 'rejected' ? [{ member, reason: one.reason as unknown }] : [];
      });
      for (const { reason } of failed) if (!isDeath(reason) && !isLoss(reason)) throw reason;
      const applied = this.#members.all.filter((_, i) => tried[i]!.status === 'fulfilled');
      // What others have applied can't be collected again; when nobody has, the sums are still there.
      if (applied.length > 0)
        await Promise.all(
          failed.map(async ({ member: { remote }, reason }) => {
            if (isLoss(reason)) await remote.process.kill(`did not get all sums (${reason.message})`);
          }),
        );
      const dead = failed.filter(({ member }) => member.remote.process.dead);
      for (const { member, reason } of dead) this.#members.count(member, reason);
      if (applied.length > 0) await this.#members.renewed(applied);
      await Promise.all(dead.map(({ member }) => this.#members.mend(member)));
      const results = tried.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      if (results.length > 0) return sameResult(results);
    }
  }

  async #collect(): Promise<void> {
    let failed: unknown;
    for (;;) {
      const dead = this.#members.all.filter(({ remote }) => remote.process.dead);
      for (const member of dead) {
        const ownDeath = isDeath(failed) && failed.message.startsWith(`${member.remote.process.name} `);
        this.#members.count(member, ownDeath ? failed : await member.remote.health().catch((error: unknown) => error));
      }
      await Promise.all(dead.map((member) => this.#members.mend(member)));
      try {
        return await this.#options.transport.collectGradients(this.#members.all.map(({ remote }) => remote.process));
      } catch (error) {
        if (!isDeath(error) || this.#members.all.every(({ remote }) => !remote.process.dead)) throw error;
        failed = error;
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

  /** Each worker writes its own shards, all at the same time. */
  async saveTo(directory: string, { worldSize }: { worldSize: number }): Promise<number> {
    mkdirSync(directory, { recursive: true });
    const steps = await Promise.all(
      Array.from({ length: worldSize }, (_, rank) =>
        this.#members.run(this.#members.all[rank % this.#members.all.length]!, ({ process }) =>
          this.#options.transport.save(process, directory, { rank, worldSize }),
        ),
      ),
    );
    if (new Set(steps).size !== 1) throw new InvariantError(`the workers are at different steps: ${steps.join(', ')}`);
    return steps[0]!;
  }

  async loadFrom(directory: string, { step }: { step: number }): Promise<void> {
    const { transport } = this.#options;
    await transport.keepFolder(directory, step);
    await Promise.all(
      this.#members.all.map((member) =>
        this.#members.run(
          member,
          ({ process }) => transport.restoreState(process),
          () => this.#members.replace(member, { withState: false }),
        ),
      ),
    );
    await this.#members.renewed(this.#members.all);
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
