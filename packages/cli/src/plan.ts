/** @file What is said about a configuration before a run. */
import { type LoadedConfig, printBatches, printResolved } from '@frame-thinker/config';

/** Notes, keys without effect and the batch table, one line each. */
export function printPlan({ notes, withoutEffect, batches, workers }: LoadedConfig): string {
  const width = Math.max(0, ...withoutEffect.map(({ key }) => key.length));
  return [
    ...notes.map((note) => `note: ${note}`),
    ...(withoutEffect.length > 0 ? ['accepted without effect:'] : []),
    ...withoutEffect.map(({ key, reason }) => `  ${key.padEnd(width)}  ${reason}`),
    printBatches(batches),
    `${'worker processes'.padEnd(35)} ${String(workers).padStart(6)}`,
  ].join('\n');
}

/** The resolved configuration as YAML, with the plan as comments below it: the output is itself a configuration file. */
export function printResolvedPlan(loaded: LoadedConfig): string {
  return `${printResolved(loaded.config)}\n${printPlan(loaded).replaceAll(/^/gm, '# ')}`;
}
