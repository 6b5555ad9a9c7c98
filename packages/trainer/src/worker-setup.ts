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
  type EnvironmentSettings,
  type PolicyWorker,
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

/** A call that takes longer than this is named, with its worker and phase. */
const QUIET_MS = 120_000;

/** @throws InputError when there is no model in the configured folder. */
export function checkModelFolder(path: string, key = 'actor_rollout_ref.model.path'): void {
  if (!existsSync(join(path, 'config.json')))
    throw new InputError(`${path}: no model here (config.json is missing); give ${key}=<Hugging Face folder>`);
}

function engineSettings({ engine }: TrainConfig, workers: number): WorkerInit['engine'] {
  const threads = engine.threads || Math.max(1, Math.floor(availableParallelism() / workers));
  return engine.name === 'tfjs'
    ? { name: 'tfjs', backend: engine.backend, threads }
    : { name: 'onnx', provider: engine.provider, threads };
}

/** The line that says what runs the model. */
export function engineLine({ capabilities: { engine, provider, note } }: Pick<PolicyWorker, 'capabilities'>): string {
  return `engine: ${engine} on ${provider}${note === undefined ? '' : ` (${note})`}`;
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

export async function startWorker(
  config: TrainConfig,
  { workers, logDirectory, warn }: { workers: number; logDirectory?: string; warn?: (line: string) => void },
): Promise<PolicyWorker> {
  return createLocalPool({
    entry: workerEntry,
    init: workerInit(config, workers),
    workers,
    ...(logDirectory === undefined ? {} : { logDirectory }),
    ...(warn === undefined ? {} : { watchdog: { after: QUIET_MS, warn } }),
  });
}

/** A worker with the weights of model.path, which only scores: the frozen reference policy. */
export async function startReference(
  config: TrainConfig,
  { logDirectory, warn }: { logDirectory: string; warn: (line: string) => void },
): Promise<PolicyWorker> {
  const { rollout: _, ...init } = workerInit(config, 1);
  return createLocalPool({
    entry: workerEntry,
    init: { ...init, training: false },
    logDirectory: join(logDirectory, 'reference'),
    watchdog: { after: QUIET_MS, warn: (line) => warn(`reference policy: ${line}`) },
  });
}

/** What the critic's worker is started with: role critic, the weights of critic.model.path. */
export function criticInit(config: TrainConfig): WorkerInit {
  const { path } = config.critic.model;
  checkModelFolder(path, 'critic.model.path');
  const { rollout: _, ...init } = workerInit(config, 1);
  return { ...init, path, role: 'critic' };
}

export async function startCritic(
  config: TrainConfig,
  { logDirectory, warn }: { logDirectory: string; warn: (line: string) => void },
): Promise<CriticWorker> {
  return createLocalPool({
    entry: workerEntry,
    init: criticInit(config),
    logDirectory: join(logDirectory, 'critic'),
    watchdog: { after: QUIET_MS, warn: (line) => warn(`critic: ${line}`) },
  });
}
