/** @file The table of all keys, read off the schema. */
import { InvariantError } from '@frame-thinker/core';
import { z } from 'zod';
import type { FieldMeta } from './schema/field.ts';

/** One key of the configuration. */
export interface KeyInfo extends FieldMeta {
  key: string;
  /** Resolved default. */
  default: unknown;
}

/** The schema under defaults, nullability and transforms. */
function inner(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodNullable)
    return inner(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodPipe) return inner(schema.in as z.ZodType);
  return schema;
}

/** The keys of a block, undefined for a value or an open map. */
export function shapeOf(schema: z.ZodType): Record<string, z.ZodType> | undefined {
  const bare = inner(schema);
  return bare instanceof z.ZodObject ? (bare.shape as Record<string, z.ZodType>) : undefined;
}

/** The schema at a path, undefined when the path leads nowhere or into an open map. */
export function schemaAt(schema: z.ZodType, path: readonly string[]): z.ZodType | undefined {
  let at: z.ZodType | undefined = schema;
  for (const key of path) {
    const shape: Record<string, z.ZodType> | undefined = at && shapeOf(at);
    at = shape && Object.hasOwn(shape, key) ? shape[key] : undefined;
  }
  return at;
}

/** What a key's declaration says, undefined for a block. */
export function metaOf(schema: z.ZodType): FieldMeta | undefined {
  const meta = schema.meta();
  return meta?.effect === undefined ? undefined : (meta as unknown as FieldMeta);
}

const tables = new WeakMap<z.ZodType, readonly KeyInfo[]>();

/** Every key below `schema`, in order of declaration. A key that is a nullable block is listed with its own keys. */
export function keysOf(schema: z.ZodType): readonly KeyInfo[] {
  const known = tables.get(schema) ?? keysBelow(schema, []);
  tables.set(schema, known);
  return known;
}

function keysBelow(schema: z.ZodType, prefix: readonly string[]): KeyInfo[] {
  const shape = shapeOf(schema);
  const meta = metaOf(schema);
  if (!shape && !meta)
    throw new InvariantError(`the schema does not say what ${prefix.join('.')} does: acts, accepted or refused`);
  const own: KeyInfo[] =
    meta && prefix.length > 0 ? [{ ...meta, key: prefix.join('.'), default: z.safeParse(schema, undefined).data }] : [];
  return [...own, ...Object.entries(shape ?? {}).flatMap(([key, child]) => keysBelow(child, [...prefix, key]))];
}
