/** @file A configuration from its parts: defaults < YAML file < `key=value`. */
import { availableParallelism } from 'node:os';
import { InputError } from '@frame-thinker/core';
import { stringify } from 'yaml';
import { z } from 'zod';
import { type BatchTable, batchTable } from './batches.ts';
import { contradictions, refusals } from './checks.ts';
import { interpolate } from './interpolate.ts';
import { keysOf, schemaAt, shapeOf } from './keys.ts';
import { type Problem, problemsOf } from './problems.ts';
import { FOLLOWS, type TrainConfig, trainSchema } from './schema/train.ts';
import { readOverrides, readYamlFile, type Source } from './source.ts';
import { deletePath, getPath, isTree, leafPaths, setPath, type Tree } from './tree.ts';

export interface LoadedConfig {
  config: TrainConfig;
  /** Worker processes that will run. */
  workers: number;
  batches: BatchTable;
  /** Things to say once at the start: what was lowered, ignored or filled in. */
  notes: string[];
  /** Keys that the user set and that have no effect, with the reason. */
  withoutEffect: { key: string; reason: string }[];
}

export interface LoadOptions {
  /** YAML file; absent: defaults. */
  file?: string;
  /** `key=value` items of a command line. */
  overrides?: readonly string[];
  /** Cores of this machine. */
  cores?: number;
}

/** The later source over the earlier one, key by key; lists are replaced as a whole. */
function overlay(earlier: Source, later: Source): Source {
  const tree = structuredClone(earlier.tree);
  for (const path of leafPaths(later.tree)) setPath(tree, path, getPath(later.tree, path));
  return { tree, places: new Map([...earlier.places, ...later.places]) };
}

/** The place of a key: its own, else that of the nearest block around it, else `defaults:`. */
function placeOf(source: Source, path: readonly string[]): string {
  for (let depth = path.length; depth > 0; depth--) {
    const place = source.places.get(path.slice(0, depth).join('.'));
    if (place !== undefined) return place;
  }
  return 'defaults:';
}

/** Throws the problems in the order of the file, then of the command line. A key that only follows another is left to that one. */
function fail(source: Source, problems: readonly Problem[]): never {
  const order = [...source.places.values()];
  const own = problems.filter(({ path }) => !(path.join('.') in FOLLOWS) || source.places.has(path.join('.')));
  const sorted = (own.length > 0 ? own : problems).toSorted(
    (a, b) => order.indexOf(placeOf(source, a.path)) - order.indexOf(placeOf(source, b.path)),
  );
  const lines = sorted.map(({ path, message }) => `${placeOf(source, path)} ${path.join('.')}: ${message}`);
  throw new InputError([...new Set(lines)].join('\n'));
}

/** Keys among `set` (dotted) that are accepted without effect. */
export function acceptedWithoutEffect(set: Iterable<string>): { key: string; reason: string }[] {
  const keys = [...set];
  return keysOf(trainSchema)
    .filter((info) => info.effect === 'without-effect')
    .filter((info) => keys.some((key) => key === info.key || key.startsWith(`${info.key}.`)))
    .map((info) => ({ key: info.key, reason: info.reason ?? '' }));
}

function countWorkers(config: TrainConfig, cores: number, notes: string[]): number {
  const { nnodes, n_gpus_per_node: perNode } = config.trainer;
  const asked = nnodes * perNode;
  // A cluster's cores are its own affair.
  if (config.trainer.pool === 'ray') return asked;
  const workers = Math.min(asked, cores);
  if (workers < asked)
    notes.push(
      `workers: ${asked} asked (trainer.nnodes ${nnodes} x trainer.n_gpus_per_node ${perNode}), ${workers} run: this machine has ${cores} cores`,
    );
  return workers;
}

/** Whether every block around `path` is a block or absent; one of another type is left for the schema to report. */
function canHold(tree: Tree, path: readonly string[]): boolean {
  return path.every((_, depth) => {
    const block = getPath(tree, path.slice(0, depth));
    return block === undefined || isTree(block);
  });
}

/** Loggers that write: `file` is metrics.jsonl, which is always written. */
const LOGGERS = ['console', 'file'];

function noteLoggers(config: TrainConfig, notes: string[]): void {
  for (const logger of config.trainer.logger)
    if (!LOGGERS.includes(logger))
      notes.push(`trainer.logger: ${logger} is not available; metrics are in the run folder's metrics.jsonl`);
}

/** Fills the files of the rendered task in where the user named none; `data.val_files=[]` asks for no validation. */
function fillSynthFiles(config: TrainConfig, set: readonly string[], notes: string[]): void {
  const { data } = config;
  if (data.synth === null) return;
  const folder = `data/synth/${data.synth.seed}`;
  if (data.train_files.length === 0) data.train_files = [`${folder}/train.jsonl`];
  else notes.push('data.synth: training rows come from data.train_files');
  if (data.val_files.length === 0 && set.includes('data.val_files'))
    notes.push('data.val_files is empty: no validation');
  else if (data.val_files.length === 0) data.val_files = [`${folder}/val.jsonl`];
  else notes.push('data.synth: validation rows come from data.val_files');
}

/** Fills in defaults and keys that follow others. @throws InputError naming keys and values that the schema does not know. */
function fillIn(source: Source): TrainConfig {
  const defaults: Tree = trainSchema.parse({});
  const tree = structuredClone(source.tree);
  for (const [key, reference] of Object.entries(FOLLOWS)) {
    const path = key.split('.');
    setPath(defaults, path, reference);
    if (canHold(tree, path) && (getPath(tree, path) ?? null) === null) setPath(tree, path, reference);
  }
  const values = interpolate(tree, defaults, (path) => placeOf(source, path));
  const parsed = trainSchema.safeParse(values);
  if (!parsed.success) fail(source, problemsOf(trainSchema, parsed.error.issues, values));
  return parsed.data;
}

/**
 * A resolved configuration that was saved, perhaps before some of today's keys were there: those have their defaults.
 * @returns with it the keys that are there no more
 * @throws InputError when the file cannot be read, or a value has another form today
 */
export function readResolved(file: string): { config: TrainConfig; gone: string[] } {
  const source = readYamlFile(file);
  const gone = leafPaths(source.tree).filter((path) => !isKnown(path));
  for (const path of gone) deletePath(source.tree, path);
  return { config: fillIn(source), gone: gone.map((path) => path.join('.')) };
}

/** Whether a path is a key, or lies inside a key that is an open map. */
function isKnown(path: readonly string[]): boolean {
  return path.some((_, i) => {
    const schema = schemaAt(trainSchema, path.slice(0, i + 1));
    return schema !== undefined && (i + 1 === path.length || shapeOf(schema) === undefined);
  });
}

/**
 * Loads and checks a configuration.
 * @throws InputError with one line a problem: `file:line:column key: what is wrong`.
 */
export function loadConfig(options: LoadOptions): LoadedConfig {
  const file = options.file === undefined ? { tree: {}, places: new Map() } : readYamlFile(options.file);
  const source = overlay(file, readOverrides(options.overrides ?? []));
  const set = leafPaths(source.tree).map((path) => path.join('.'));
  const config = fillIn(source);
  const notes: string[] = [];
  fillSynthFiles(config, set, notes);
  noteLoggers(config, notes);
  const problems = [...refusals(trainSchema, config), ...contradictions(config)];
  if (problems.length > 0) fail(source, problems);
  return {
    config,
    workers: countWorkers(config, options.cores ?? availableParallelism(), notes),
    batches: batchTable(config),
    notes,
    withoutEffect: acceptedWithoutEffect(set),
  };
}

/** The resolved configuration as YAML. */
export function printResolved(config: TrainConfig): string {
  return stringify(config, { lineWidth: 0 });
}

/** The JSON schema of configuration files, with `effect` and `reason` beside each description. */
export function configJsonSchema(): Tree {
  return z.toJSONSchema(trainSchema, { io: 'input', unrepresentable: 'any' }) as Tree;
}
