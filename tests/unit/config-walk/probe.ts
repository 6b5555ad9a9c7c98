/** @file What a probe of a key is: two settings that the product's own code must tell apart. */
import { isDeepStrictEqual } from 'node:util';
import { type LoadedConfig, loadConfig } from '@frame-thinker/config';
import { InputError, RunError } from '@frame-thinker/core';

/** Something that the product does with a configuration, in a form that can be compared. Must not depend on the clock. */
export type Observer = (loaded: LoadedConfig) => unknown;

/**
 * Shows that a key acts: what is observed differs between its two values. An observer hands the whole configuration to the
 * product's code and reads no key itself, so that a key which that code ignores changes nothing.
 */
export interface Probe {
  key: string;
  values: readonly [unknown, unknown];
  /** Other settings (`key=value`) that the key needs to matter. */
  with?: readonly string[];
  observe: Observer;
}

/** A block's probes: `[key below the block, values, observer, other settings]`. */
export function probesOf(
  block: string,
  rows: readonly (readonly [key: string, values: readonly [unknown, unknown], observe: Observer, ...with: string[]])[],
): Probe[] {
  return rows.map(([key, values, observe, ...others]) => ({
    key: block === '' ? key : `${block}.${key}`,
    values,
    observe,
    with: others,
  }));
}

/** An item of a command line. */
export const item = (key: string, value: unknown): string => `${key}=${JSON.stringify(value)}`;

/** Observations by observer and configuration: most probes compare with the same run. */
const known = new Map<Observer, Map<string, Promise<unknown>>>();

async function look(observe: Observer, loaded: LoadedConfig): Promise<unknown> {
  try {
    return await observe(loaded);
  } catch (error) {
    if (error instanceof InputError || error instanceof RunError) return { refused: error.message };
    throw error;
  }
}

/** What is observed with these settings: a refusal or a failed run is an observation too. */
export async function observed(
  observe: Observer,
  overrides: readonly string[],
  { again = false }: { again?: boolean } = {},
): Promise<unknown> {
  let loaded: LoadedConfig;
  try {
    loaded = loadConfig({ overrides, cores: 2 });
  } catch (error) {
    return { refused: (error as Error).message };
  }
  const of = known.get(observe) ?? new Map<string, Promise<unknown>>();
  known.set(observe, of);
  // What a key does must be in the resolved configuration; that it was set is not enough.
  const key = JSON.stringify([loaded.config, loaded.workers]);
  const found = again ? look(observe, loaded) : (of.get(key) ?? look(observe, loaded));
  of.set(key, found);
  return found;
}

/** Whether the probe's values make a difference. */
export async function tellsApart({ key, values, observe, with: others = [] }: Probe): Promise<boolean> {
  const [one, other] = [
    await observed(observe, [...others, item(key, values[0])]),
    await observed(observe, [...others, item(key, values[1])]),
  ];
  return !isDeepStrictEqual(one, other);
}
