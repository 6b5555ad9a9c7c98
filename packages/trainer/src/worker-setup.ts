/** @file Starts the policy worker that a configuration describes. */

import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { RegimeOptions } from '@frame-thinker/agent-env';
import type { TrainConfig } from '@frame-thinker/config';
import { InputError } from '@frame-thinker/core';
import { workerEntry } from '@frame-thinker/policy-worker';
import {
  type CriticWorker,
  createLocalPool,
  createPool,
  createRayTransport,
  type EnvironmentSettings,
  type PolicyWorker,
  type RayTransportOptions,
  type WorkerInit,
} from '@frame-thinker/worker-pool';

/** The sampling regimes of a configuration. */
export function regimesOf({ env }: TrainConfig): RegimeOptions {
  const look = ({ frames, max_width, max_height }: TrainConfig['env']['short']) => ({
    frames,
    maxWidth: max_width,
    maxHeight: max_height,
  });
  return { limitSeconds: env.long_from_seconds, short: look(env.short), long: look(env.long) };
}

function environmentSettings(config: TrainConfig): EnvironmentSettings {
  return {
    grammar: config.env.grammar,
    template: config.env.template,
    regimes: regimesOf(config),
    systemPrompt: config.data.system_prompt,
    compat: 'none',
    registry: config.env.registry,
    baseDir: process.cwd(),
    answerPrefill: config.env.answer_prefill,
  };
}

/** This checkout. */
const CHECKOUT = join(import.meta.dirname, '../../..');

/** A call that takes longer than this is named, with its worker and phase. */
const QUIET_MS = 120_000;
/** One that nothing is heard of for so long is taken for hanging: its worker is replaced. */
const HUNG_MS = 1_800_000;

/** @throws InputError when there is no model in the configured folder. */
export function checkModelFolder(path: string, key = 'actor_rollout_ref.model.path'): void {
  if (!existsSync(join(path, 'config.json')))
    throw new InputError(`${path}: no model here (config.json is missing); give ${key}=<Hugging Face folder>`);
}

function engineSettings({ engine, trainer, ray }: TrainConfig, workers: number): WorkerInit['engine'] {
  const cores = trainer.pool === 'ray' ? ray.num_cpus : Math.max(1, Math.floor(availableParallelism() / workers));
  const threads = engine.threads || cores;
  return engine.name === 'tfjs'
    ? { name: 'tfjs', backend: engine.backend, threads }
    : { name: 'onnx', provider: engine.provider, threads };
}

/** The line that says what runs the model. */
export function engineLine({ capabilities: { engine, provider, note } }: Pick<PolicyWorker, 'capabilities'>): string {
  return `engine: ${engine} on ${provider}${note === undefined ? '' : ` (${note})`}`;
}

/** What a Ray cluster is asked for. */
export function rayOptions({ ray }: TrainConfig): Omit<RayTransportOptions, 'logDirectory' | 'warn'> {
  return {
    address: ray.address,
    namespace: ray.namespace,
    entry: workerEntry,
    resources: {
      numCpus: ray.num_cpus,
      numGpus: ray.num_gpus,
      resources: ray.resources,
      placement: ray.placement,
    },
    node: ray.node ?? process.execPath,
    checkout: ray.checkout ?? CHECKOUT,
    cwd: process.cwd(),
    graceSeconds: ray.grace_seconds,
    startSeconds: ray.start_seconds,
  };
}

/** What every worker is started with. */
export function workerInit(config: TrainConfig, workers: number): WorkerInit {
  const { model, rollout } = config.actor_rollout_ref;
  checkModelFolder(model.path);
  return {
    path: model.path,
    dtype: 'float32',
    seed: config.trainer.seed,
    engine: engineSettings(config, workers),
    rollout: {
      slots: rollout.slots,
      maxPromptLength: config.data.max_prompt_length,
      truncation: config.data.truncation,
      maxResponseLength: config.data.max_response_length,
      singleResponseMaxTokens: rollout.agent.single_response_max_tokens,
      maxTurns: rollout.agent.activate_agent ? rollout.agent.max_turns : 1,
      maxImages: rollout.agent.max_vllm_images,
    },
    environment: environmentSettings(config),
  };
}

interface StartOptions {
  workers: number;
  logDirectory?: string;
  warn?: (line: string) => void;
}

/** Workers where `trainer.pool` says. */
async function startPool(
  config: TrainConfig,
  init: WorkerInit,
  { workers, logDirectory, warn }: StartOptions,
): Promise<PolicyWorker & CriticWorker> {
  const logs = logDirectory === undefined ? {} : { logDirectory };
  const watched = warn === undefined ? {} : { watchdog: { quietMs: QUIET_MS, hungMs: HUNG_MS, warn } };
  if (config.trainer.pool === 'local')
    return createLocalPool({ entry: workerEntry, init, workers, ...logs, ...watched });
  const transport = await createRayTransport({
    ...rayOptions(config),
    ...logs,
    ...(warn === undefined ? {} : { warn }),
  });
  return createPool({ transport, init, workers, ...watched });
}

export async function startWorker(config: TrainConfig, options: StartOptions): Promise<PolicyWorker> {
  return startPool(config, workerInit(config, options.workers), options);
}

/** Options of workers that stand beside the policy's: as many, logs in a folder of their own, warnings that name them. */
function beside({ workers, logDirectory, warn }: StartOptions, folder: string, name: string): StartOptions {
  return {
    workers,
    ...(logDirectory === undefined ? {} : { logDirectory: join(logDirectory, folder) }),
    ...(warn === undefined ? {} : { warn: (line: string) => warn(`${name}: ${line}`) }),
  };
}

/** Workers with the weights of model.path, which only score: the frozen reference policy. */
export async function startReference(config: TrainConfig, options: StartOptions): Promise<PolicyWorker> {
  const { rollout: _, ...init } = workerInit(config, options.workers);
  return startPool(config, { ...init, training: false }, beside(options, 'reference', 'reference policy'));
}

/** What a worker of the critic is started with: role critic, the weights of critic.model.path. */
export function criticInit(config: TrainConfig, workers: number): WorkerInit {
  const { path } = config.critic.model;
  checkModelFolder(path, 'critic.model.path');
  const { rollout: _, ...init } = workerInit(config, workers);
  return { ...init, path, role: 'critic' };
}

export async function startCritic(config: TrainConfig, options: StartOptions): Promise<CriticWorker> {
  return startPool(config, criticInit(config, options.workers), beside(options, 'critic', 'critic'));
}
