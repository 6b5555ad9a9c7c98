/** @file What zod found, in our words: one line a problem, with its place. */
import type { z } from 'zod';
import { keysOf, schemaAt, shapeOf } from './keys.ts';
import { nearest } from './suggest.ts';
import { getPath, isTree, leafPaths } from './tree.ts';

const KINDS: Record<string, string> = {
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  string: 'text',
  array: 'a list',
  tuple: 'a list',
  object: 'a block of keys',
  record: 'a block of keys',
};

/** A value as a user wrote it, short. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function wrongValue(issue: z.core.$ZodIssue, value: unknown): string {
  const got = `got ${show(value)}`;
  switch (issue.code) {
    case 'invalid_type': {
      const hint = issue.expected === 'string' && typeof value === 'number' ? ' (put it in quotes)' : '';
      return `expected ${KINDS[issue.expected] ?? issue.expected}, ${got}${hint}`;
    }
    case 'invalid_value': {
      const near = typeof value === 'string' ? nearest(value, issue.values.map(String)) : undefined;
      const options = issue.values.map(String).join(', ');
      return `expected one of ${options}, ${got}${near ? ` - did you mean "${near}"?` : ''}`;
    }
    case 'too_small':
      return `expected ${issue.origin === 'array' ? 'a length' : 'a number'} ${issue.inclusive ? '>=' : '>'} ${issue.minimum}, ${got}`;
    case 'too_big':
      return `expected ${issue.origin === 'array' ? 'a length' : 'a number'} ${issue.inclusive ? '<=' : '<'} ${issue.maximum}, ${got}`;
    default:
      return issue.message.startsWith('expected') ? `${issue.message}, ${got}` : `${issue.message} (${got})`;
  }
}

/** A key that may be meant: a neighbour with a similar name, else a key of that name inside the block, elsewhere, or a similar one. */
function meant(schema: z.ZodType, block: readonly string[], key: string): string | undefined {
  const here = schemaAt(schema, block);
  const near = nearest(key, Object.keys((here && shapeOf(here)) ?? {}));
  if (near !== undefined) return near;
  const elsewhere = keysOf(schema).map((info) => info.key);
  const same = elsewhere.filter((other) => other.endsWith(`.${key}`));
  const inside = same.filter((other) => other.startsWith(`${block.join('.')}.`));
  if (inside.length > 0) return inside.slice(0, 3).join('" or "');
  if (same.length > 0) return same.slice(0, 3).join('" or "');
  return nearest([...block, key].join('.'), elsewhere);
}

/** What is said of unknown keys: of each key inside a block that does not exist, where one of those is meant. */
function unknownKeys(schema: z.ZodType, path: string[], value: unknown): Problem[] {
  const say = (at: string[], found: string | undefined): Problem => ({
    path: at,
    message: `unknown key${found === undefined ? blocksOf(schema, path) : ` - did you mean "${found}"?`}`,
  });
  const inside = isTree(value) ? leafPaths(value, path) : [];
  const inner = inside.map((leaf) => say(leaf, meant(schema, leaf.slice(0, -1), leaf.at(-1)!)));
  if (inner.some(({ message }) => message.includes('did you mean'))) return inner;
  const whole = meant(schema, path.slice(0, -1), path.at(-1)!);
  return whole === undefined && inner.length > 0 ? inner : [say(path, whole)];
}

/** At the top the blocks are few enough to be named. */
function blocksOf(schema: z.ZodType, path: readonly string[]): string {
  if (path.length > 1) return '';
  const blocks = Object.entries(shapeOf(schema) ?? {}).flatMap(([key, child]) => (shapeOf(child) ? [key] : []));
  return ` (the blocks are ${blocks.join(', ')})`;
}

export interface Problem {
  path: string[];
  message: string;
}

/** zod's issues as problems. `root`: the value that was parsed. */
export function problemsOf(schema: z.ZodType, issues: readonly z.core.$ZodIssue[], root: unknown): Problem[] {
  return issues.flatMap((issue): Problem[] => {
    const path = issue.path.map(String);
    if (issue.code === 'unrecognized_keys')
      return issue.keys.flatMap((key) => unknownKeys(schema, [...path, key], getPath(root, [...path, key])));
    const value = getPath(root, path);
    if (issue.code === 'invalid_type' && isTree(value)) {
      const known = shapeOf(schemaAt(schema, path) ?? schema);
      if (!known)
        return [{ path, message: `expected ${KINDS[issue.expected] ?? issue.expected}, got a block of keys` }];
    }
    return [{ path, message: wrongValue(issue, value) }];
  });
}
