/** @file The run folder: its configuration, and whether a run may go on in it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { printResolved, readResolved, type TrainConfig } from '@frame-thinker/config';
import { InputError, writeFileAtomic } from '@frame-thinker/core';

function leaves(value: unknown, path = ''): Map<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return new Map([[path, JSON.stringify(value)]]);
  const entries = Object.entries(value).flatMap(([key, inner]) => [...leaves(inner, path ? `${path}.${key}` : key)]);
  return new Map(entries);
}

/** Keys that must not change within a run: what is trained, on what, and how. */
const FIXED =
  /^(data|algorithm|actor_rollout_ref|critic|reward_model|env|reward|ccv|custom_reward_function|trainer\.seed)(\.|$)/;

/**
 * Keys of the configuration that differ from the one the run was started with. Both are compared resolved: a key that the saved
 * one lacks has its default there, one that is there no more is left out.
 */
export function configChanges(dir: string, config: TrainConfig): { key: string; before: string; now: string }[] {
  const file = join(dir, 'config.yaml');
  if (!existsSync(file)) return [];
  const saved = readResolved(file);
  const [before, now] = [leaves(saved.config), leaves(config)];
  const keys = [...new Set([...before.keys(), ...now.keys()])].sort();
  return keys.flatMap((key) => {
    const [b = 'absent', n = 'absent'] = [before.get(key), now.get(key)];
    return b === n ? [] : [{ key, before: b, now: n }];
  });
}

/** Refuses a resume whose model, data or algorithm differ; returns the other changes. */
export function checkResumable(dir: string, config: TrainConfig): string[] {
  const changes = configChanges(dir, config).filter(({ key }) => !key.startsWith('trainer.resume'));
  const refused = changes.filter(({ key }) => FIXED.test(key));
  const show = ({ key, before, now }: (typeof changes)[number]): string => `${key}: ${before} → ${now}`;
  if (refused.length > 0)
    throw new InputError(
      `${dir}: this run was started with another configuration (${refused.map(show).join(', ')}); give trainer.experiment_name=… for a new run, or trainer.resume_mode=disable to start it anew`,
    );
  return changes.map(show);
}

export function writeConfig(dir: string, config: TrainConfig): void {
  writeFileAtomic(join(dir, 'config.yaml'), printResolved(config));
}
