/**
 * @file Workers on the nodes of a Ray cluster. Gradient sums and states are files of a node and objects of the cluster: they go from
 * node to node, and never through the controller, which sees the shards of checkpoints alone.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { actorFileNames, openActor } from '@frame-thinker/checkpoint';
import { InputError, InvariantError, messageOf } from '@frame-thinker/core';
import {
  type ActorClass,
  connectRay,
  type ObjectRef,
  pythonModule,
  type RayClient,
  RayError,
  type ResourceOptions,
} from '@frame-thinker/ray-client';
import { isLoss, WorkerError } from '../errors.ts';
import { RemoteWorker } from '../remote-worker.ts';
import type { PoolTransport, Shard, WorkerConnection } from '../transport.ts';
import { RayConnection } from './ray-connection.ts';
import { ROOT, SHIM_MODULE, shippedSources } from './shipped-sources.ts';

const CONNECT_SECONDS = 60;
/** What a worker outlives its driver by, beyond the grace of the connection. */
const LEASE_SECONDS = 20;
/** How long Ray may take to notice that a node is gone whose objects are. */
const NODE_DEATH_MS = 120_000;

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

/** Files of an actor folder. */
interface KeptState {
  step: number;
  files: { name: string; ref: ObjectRef }[];
  /** The checkpoint's folder that they were read from. */
  from: string | undefined;
}

export class RayTransport implements PoolTransport {
  readonly #client: RayClient;
  readonly #shim: ActorClass;
  readonly #options: RayTransportOptions;
  /** Of the total's parts. */
  #totals: readonly ObjectRef[] = [];
  #state: KeptState | undefined;
  /** What a worker's node must have free for bulk data. */
  #bytes = 0;
  #saves = 0;

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
      warn: this.#options.warn,
    });
  }

  async #notStarted(): Promise<string> {
    const { numCpus = 1, numGpus = 0, resources = {} } = this.#options.resources;
    const asked = JSON.stringify({ CPU: numCpus, GPU: numGpus, ...resources });
    const free = JSON.stringify(await this.#client.availableResources());
    return `a worker asks for ${asked}, the cluster has free ${free}`;
  }

  /** A worker's own sums, what it gets of the others', and the total, in float64; two states in float32. */
  expect({ parameters }: { parameters: number }): void {
    this.#bytes = parameters * (3 * 8 + 2 * 12);
  }

  /** Each worker cuts its sums into a part for each; a part's worker adds what all have of it, in their order. */
  async collectGradients(workers: readonly WorkerConnection[]): Promise<void> {
    try {
      await this.#collect(workers);
    } catch (error) {
      if (!isLoss(error)) throw error;
      // A node is gone, and that its worker is dead will be told.
      await Promise.race([...workers.map(({ died }) => died), sleep(NODE_DEATH_MS, undefined, { ref: false })]);
      if (workers.every(({ dead }) => !dead)) throw error;
      throw new WorkerError('died', error.method, error.message, error.trace);
    }
  }

  async #collect(workers: readonly WorkerConnection[]): Promise<void> {
    const all = await Promise.all(
      workers.map(async (worker) => {
        const connection = rayConnection(worker);
        return { connection, remote: new RemoteWorker(connection), folder: await connection.folder(this.#bytes) };
      }),
    );
    const partOf = (folder: string, from: number, part: number): string => join(folder, `gradients-${from}-${part}`);
    const sent = await Promise.all(
      all.map(async ({ connection, remote, folder }, from) => {
        await remote.writeGradients(all.map((_, part) => partOf(folder, from, part)));
        const parts = all.map((_, part) => part).filter((part) => part !== from);
        const refs = await connection.take(parts.map((part) => partOf(folder, from, part)));
        return parts.map((part, i) => ({ from, part, ref: refs[i]! }));
      }),
    );
    const moved = sent.flat();
    const totals = await Promise.all(
      all.map(async ({ connection, remote, folder }, part) => {
        const mine = moved.filter((one) => one.part === part);
        await connection.put(
          mine.map(({ from }) => partOf(folder, from, part)),
          mine.map(({ ref }) => ref),
        );
        const total = join(folder, `total-${part}`);
        await remote.addGradients(
          all.map((_, from) => partOf(folder, from, part)),
          total,
        );
        return connection.take([total]);
      }),
    ).finally(() => this.#client.releaseSoon(...moved.map(({ ref }) => ref)));
    this.#client.releaseSoon(...this.#totals);
    this.#totals = totals.flat();
  }

  async spreadGradients(worker: WorkerConnection): Promise<void> {
    if (this.#totals.length === 0) throw new InvariantError('no gradients were collected');
    const connection = rayConnection(worker);
    const folder = await connection.folder(this.#bytes);
    const paths = this.#totals.map((_, part) => join(folder, `total-${part}`));
    await connection.put(paths, this.#totals);
    await new RemoteWorker(connection).readGradients(paths);
  }

  async save(worker: WorkerConnection, directory: string, shard: Shard): Promise<number> {
    const { step, files } = await this.#takeShard(worker, shard);
    try {
      // One file at a time in the controller's memory.
      for (const { name, ref } of files)
        writeFileSync(join(directory, name), (await this.#client.get(ref)) as Uint8Array);
      return step;
    } finally {
      this.#client.releaseSoon(...files.map(({ ref }) => ref));
    }
  }

  async #takeShard(worker: WorkerConnection, shard: Shard): Promise<KeptState> {
    const connection = rayConnection(worker);
    const folder = join(await connection.folder(this.#bytes), `save-${++this.#saves}`);
    const step = await new RemoteWorker(connection).save(folder, shard);
    const names = actorFileNames(shard.worldSize, shard.rank);
    const refs = await connection.take(names.map((name) => join(folder, name)));
    return { step, files: names.map((name, i) => ({ name, ref: refs[i]! })), from: undefined };
  }

  async keepState(worker: WorkerConnection): Promise<void> {
    this.#keep(await this.#takeShard(worker, { rank: 0, worldSize: 1 }));
  }

  async keepFolder(directory: string, step: number): Promise<void> {
    // Damage is told before anything is sent, with the file's own path.
    const { worldSize, close } = openActor(directory);
    close();
    const names = Array.from({ length: worldSize }, (_, rank) => actorFileNames(worldSize, rank)).flat();
    const files: KeptState['files'] = [];
    try {
      for (const name of names) files.push({ name, ref: await this.#client.put(readFileSync(join(directory, name))) });
    } catch (error) {
      this.#client.releaseSoon(...files.map(({ ref }) => ref));
      throw error;
    }
    this.#keep({ step, files, from: directory });
  }

  #keep(state: KeptState): void {
    this.#client.releaseSoon(...(this.#state?.files ?? []).map(({ ref }) => ref));
    this.#state = state;
  }

  async restoreState(worker: WorkerConnection): Promise<void> {
    if (!this.#state) throw new InvariantError('no state was kept');
    const { step, files, from } = this.#state;
    const connection = rayConnection(worker);
    const folder = join(await connection.folder(this.#bytes), 'load');
    const paths = files.map(({ name }) => join(folder, name));
    await connection.put(
      paths,
      files.map(({ ref }) => ref),
    );
    try {
      await new RemoteWorker(connection).load(folder, { step });
    } catch (error) {
      if (error instanceof InputError && from !== undefined)
        throw new InputError(error.message.replaceAll(folder, from));
      throw error;
    } finally {
      if (!connection.dead) await connection.remove(paths);
    }
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}

function rayConnection(worker: WorkerConnection): RayConnection {
  if (worker instanceof RayConnection) return worker;
  throw new InvariantError(`${worker.name} is not a worker of this cluster`);
}
