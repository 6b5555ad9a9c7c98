/**
 * @file Workers on the nodes of a Ray cluster. Gradient sums and states are objects of the cluster: they go from node to node, and
 * never through the controller.
 */
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError, InvariantError, messageOf } from '@frame-thinker/core';
import {
  type ActorClass,
  connectRay,
  pythonModule,
  type RayClient,
  RayError,
  type ResourceOptions,
} from '@frame-thinker/ray-client';
import type { PoolTransport, WorkerConnection } from '../transport.ts';
import { type KeptAnswer, RayConnection } from './ray-connection.ts';
import { ROOT, SHIM_MODULE, shippedSources } from './shipped-sources.ts';

const CONNECT_SECONDS = 60;
/** What a worker outlives its driver by, beyond the grace of the connection. */
const LEASE_SECONDS = 20;

export interface RayTransportOptions {
  /** `ray://host:port` of the cluster's Ray Client server. */
  address: string;
  /** Of the actors. */
  namespace?: string;
  /** Absolute path of the worker's entry module in this checkout. */
  entry: string;
  /** What each worker takes of its node, and how workers are laid out. */
  resources: Pick<ResourceOptions, 'numCpus' | 'numGpus' | 'resources' | 'placement'>;
  /** On the nodes: the Node.js executable, an installed checkout whose dependencies are used, the folder that workers run in. */
  node: string;
  checkout: string;
  cwd: string;
  env?: Readonly<Record<string, string>>;
  /** How long a lost connection may take to come back. Workers of a driver that is gone end 20 s later by themselves. */
  graceSeconds?: number;
  /** How long a worker may take to start, its turn for free resources included. Default 300. */
  startSeconds?: number;
  /** The workers' stdout and stderr are appended here as `worker-0.log` …; absent: only the last lines are kept. */
  logDirectory?: string;
  warn?: (line: string) => void;
}

/** Opens a session with the cluster. @throws InputError when there is none under the address, or it asks for another token */
export async function createRayTransport(options: RayTransportOptions): Promise<RayTransport> {
  const { address, namespace, graceSeconds, startSeconds = CONNECT_SECONDS, warn } = options;
  let client: RayClient | undefined;
  try {
    client = await connectRay({
      address,
      connectMs: 1000 * Math.min(CONNECT_SECONDS, startSeconds),
      ...(namespace === undefined ? {} : { namespace }),
      ...(graceSeconds === undefined ? {} : { graceSeconds }),
      runtimeEnv: { workingDir: shippedSources() },
      onWarning: (line) => warn?.(`Ray: ${line}`),
    });
    return new RayTransport(client, await client.actorClass(pythonModule(SHIM_MODULE, 'NodeWorker')), options);
  } catch (error) {
    await client?.close();
    if (error instanceof RayError) throw new InputError(`no session with Ray at ${address}: ${messageOf(error)}`);
    throw error;
  }
}

export class RayTransport implements PoolTransport {
  /** The run folder may be on the trainer's machine alone. */
  readonly sharesFiles = false;
  readonly #client: RayClient;
  readonly #shim: ActorClass;
  readonly #options: RayTransportOptions;
  #gradients: KeptAnswer | undefined;
  #state: KeptAnswer | undefined;

  constructor(client: RayClient, shim: ActorClass, options: RayTransportOptions) {
    this.#client = client;
    this.#shim = shim;
    this.#options = options;
  }

  start(rank: number): RayConnection {
    const { node, checkout, cwd, entry, env = {}, resources, logDirectory } = this.#options;
    const loader = fileURLToPath(import.meta.resolve('tsx'))
      .split('/node_modules/tsx/')
      .at(-1)!;
    const command = [
      node,
      '--import',
      `file://${join(checkout, 'node_modules/tsx', loader)}`,
      `{here}/${relative(ROOT, join(import.meta.dirname, 'node-entry.ts'))}`,
      checkout,
      relative(ROOT, entry),
    ];
    const lease = (this.#options.graceSeconds ?? 30) + LEASE_SECONDS;
    const folders = [cwd, join(checkout, 'node_modules')];
    return new RayConnection({
      client: this.#client,
      name: `worker ${rank}`,
      logFile: logDirectory && join(logDirectory, `worker-${rank}.log`),
      createActor: () => this.#shim.create([command, { cwd, env, lease, folders }], resources),
      startSeconds: this.#options.startSeconds ?? 300,
      notStarted: () => this.#notStarted(),
    });
  }

  async #notStarted(): Promise<string> {
    const { numCpus = 1, numGpus = 0, resources = {} } = this.#options.resources;
    const asked = JSON.stringify({ CPU: numCpus, GPU: numGpus, ...resources });
    const free = JSON.stringify(await this.#client.availableResources());
    return `a worker asks for ${asked}, the cluster has free ${free}`;
  }

  /** A sum goes from worker to worker; each adds its own in float64, and keeps its own as they are. */
  async collectGradients(workers: readonly WorkerConnection[]): Promise<void> {
    const [first, ...others] = workers.map(rayConnection);
    let total = await first!.keep('gradients_out');
    for (const worker of others) {
      const before = total;
      try {
        total = await worker.give(before, { last: 'gradients_add' });
      } finally {
        this.#release(before);
      }
    }
    this.#release(this.#gradients);
    this.#gradients = total;
  }

  #release(kept: KeptAnswer | undefined): void {
    if (kept) this.#client.releaseSoon(kept.frames);
  }

  async spreadGradients(worker: WorkerConnection): Promise<void> {
    if (!this.#gradients) throw new InvariantError('no gradients were collected');
    this.#release(await rayConnection(worker).give(this.#gradients, { last: 'gradients_in' }));
  }

  async keepState(worker: WorkerConnection): Promise<void> {
    const state = await rayConnection(worker).keep('weights_out');
    this.#release(this.#state);
    this.#state = state;
  }

  async restoreState(worker: WorkerConnection): Promise<void> {
    if (!this.#state) throw new InvariantError('no state was kept');
    const methods = { partial: 'weights_part', last: 'weights_in' };
    this.#release(await rayConnection(worker).give(this.#state, methods));
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}

function rayConnection(worker: WorkerConnection): RayConnection {
  if (worker instanceof RayConnection) return worker;
  throw new InvariantError(`${worker.name} is not a worker of this cluster`);
}
