/** @file Options of tasks and actors, as Ray's remote() takes them. */
import { type PickleValue, pickleCall } from '@frame-thinker/pickle';
import { RayValueError } from './errors.ts';
import { toPickleValue } from './values.ts';

export interface ResourceOptions {
  numCpus?: number;
  numGpus?: number;
  /** Bytes. */
  memory?: number;
  /** Resources of the cluster's own, by name. */
  resources?: Readonly<Record<string, number>>;
  /** Where to run: on any node (Ray's default), spread over the nodes, or on one node by its id in hex. */
  placement?: 'default' | 'spread' | { nodeId: string; soft?: boolean };
  envVars?: Readonly<Record<string, string>>;
}

export interface TaskOptions extends ResourceOptions {
  /** Objects that the function returns, as a tuple or a list. */
  numReturns?: number;
  /** How often Ray runs it again after its process died. */
  maxRetries?: number;
}

export interface ActorOptions extends ResourceOptions {
  /** Under which others find it. */
  name?: string;
  namespace?: string;
  /** A detached actor outlives this client. */
  lifetime?: 'detached';
  /** With a name: the actor of that name, if there is one. Of detached actors only: Ray would end this session's own. */
  getIfExists?: boolean;
  /** Calls that run at the same time, in threads. */
  maxConcurrency?: number;
  /** How often Ray starts it again after its process died. */
  maxRestarts?: number;
}

export interface MethodOptions {
  numReturns?: number;
}

const SPREAD = 'SPREAD';

/** Plain data that holds no reference: options, a runtime environment. @throws RayValueError where it does */
export function pickleFields(fields: Readonly<Record<string, unknown>>): Extract<PickleValue, { kind: 'dict' }> {
  return toPickleValue(fields, ({ kind }) => {
    throw new RayValueError(`an option can't be a reference (an ${kind})`);
  }) as Extract<PickleValue, { kind: 'dict' }>;
}

/** The options as a Python dict; undefined where none is given. */
export function pickleOptions(options: TaskOptions & ActorOptions): PickleValue | undefined {
  const { placement, envVars, numCpus, numGpus, memory, resources, numReturns, maxRetries, ...actor } = options;
  const strategy =
    placement === 'spread'
      ? SPREAD
      : typeof placement === 'object'
        ? pickleCall(
            'ray.util.scheduling_strategies NodeAffinitySchedulingStrategy',
            placement.nodeId,
            placement.soft ?? false,
          )
        : undefined;
  const { name, namespace, lifetime, getIfExists, maxConcurrency, maxRestarts } = actor;
  const named: Record<string, unknown> = {
    num_cpus: numCpus,
    num_gpus: numGpus,
    memory,
    resources,
    num_returns: numReturns,
    max_retries: maxRetries,
    name,
    namespace,
    lifetime,
    get_if_exists: getIfExists,
    max_concurrency: maxConcurrency,
    max_restarts: maxRestarts,
    runtime_env: envVars && { env_vars: envVars },
  };
  const given = pickleFields(named);
  if (strategy !== undefined) given.entries.set('scheduling_strategy', strategy);
  return given.entries.size > 0 ? given : undefined;
}
