/** @file Environments by name: ours, and those of the user's modules. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Environment, InputError, messageOf } from '@frame-thinker/core';
import { createSpotlightEnvironment, type SpotlightOptions } from './spotlight.ts';

/** Builds an environment from `env.*` options: what a registry module's default export is. */
export type EnvironmentFactory = (options: EnvironmentOptions) => Environment;
export type EnvironmentOptions = SpotlightOptions & Record<string, unknown>;

export interface EnvironmentRegistry {
  names: string[];
  /** @throws InputError naming the known environments, or saying what is wrong with the module. */
  create(name: string): Promise<Environment>;
}

async function loadFactory(name: string, path: string, baseDir: string): Promise<EnvironmentFactory> {
  const where = `env.registry.${name}: ${path}`;
  if (path.endsWith('.py'))
    throw new InputError(
      `${where}: environments are Node modules, Python is not run; write a .js, .mjs or .ts module with "export default (options) => environment"`,
    );
  const file = resolve(baseDir, path);
  if (!existsSync(file)) throw new InputError(`${where}: no such file (${file})`);
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(file).href);
  } catch (error) {
    throw new InputError(`${where}: cannot be loaded: ${messageOf(error)}`);
  }
  if (typeof module.default !== 'function')
    throw new InputError(`${where}: has no default export (options) => environment`);
  return module.default as EnvironmentFactory;
}

const SPOTLIGHT = 'think_with_video';

/** Names that rows may have, with `env.registry`'s. */
export const environmentNames = (registry: Record<string, string> = {}): string[] => [
  ...new Set([SPOTLIGHT, ...Object.keys(registry)]),
];

/** What is said of a name that is none of these. */
export const unknownEnvironment = (name: string, names: readonly string[]): string =>
  `env_name "${name}" is not known; known are ${names.join(', ')}. Add it under env.registry (name: path of a module)`;

/** `env.registry`: name → module path (relative to `baseDir`, default the working folder). `think_with_video` is always there. */
export function createEnvironmentRegistry({
  registry = {},
  baseDir = process.cwd(),
  options,
}: {
  registry?: Record<string, string>;
  baseDir?: string;
  options: EnvironmentOptions;
}): EnvironmentRegistry {
  const factories = new Map<string, Promise<EnvironmentFactory>>([
    [SPOTLIGHT, Promise.resolve(createSpotlightEnvironment)],
  ]);
  const names = environmentNames(registry);
  return {
    names,
    async create(name) {
      const path = Object.hasOwn(registry, name) ? registry[name] : undefined;
      let factory = path === undefined ? factories.get(name) : undefined;
      if (path !== undefined) {
        factory = factories.get(`module ${name}`) ?? loadFactory(name, path, baseDir);
        factories.set(`module ${name}`, factory);
      }
      if (!factory) throw new InputError(unknownEnvironment(name, names));
      const environment = (await factory)(options);
      for (const method of ['reset', 'step', 'close'] as const)
        if (typeof environment?.[method] !== 'function')
          throw new InputError(`env.registry.${name}: ${path}: the environment has no method ${method}`);
      return environment;
    },
  };
}
