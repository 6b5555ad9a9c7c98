/** @file How a key is declared: its type and default (zod), one line of description, and what setting it does. */
import { z } from 'zod';

/**
 * `acts`: the value changes what happens. `without-effect`: accepted because other programs' configurations have it,
 * listed once at the start. `refused`: only the neutral values in `supported` pass.
 */
export type Effect = 'acts' | 'without-effect' | 'refused';

export interface FieldMeta {
  description: string;
  effect: Effect;
  /** Why a key has no effect, or why other values than `supported` are refused. */
  reason?: string;
  /** When given, other values (of a list: other items) are refused with the reason. */
  supported?: readonly unknown[];
}

export function acts<T extends z.ZodType>(type: T, description: string): T {
  return type.meta({ description, effect: 'acts' });
}

/** A key that acts, of which some well-formed values have no implementation. */
export function actsFor<T extends z.ZodType>(
  type: T,
  description: string,
  limits: { supported: readonly unknown[]; reason: string },
): T {
  return type.meta({ description, effect: 'acts', ...limits });
}

export function withoutEffect<T extends z.ZodType>(type: T, description: string, reason: string): T {
  return type.meta({ description, effect: 'without-effect', reason });
}

/** A key of which only neutral values pass. */
export function refused<T extends z.ZodType>(
  type: T,
  description: string,
  limits: { supported: readonly unknown[]; reason: string },
): T {
  return type.meta({ description, effect: 'refused', ...limits });
}

/** A block of keys; a missing block is a block of defaults, an unknown key in it an error. */
export function section<S extends z.ZodRawShape>(description: string, shape: S) {
  return z
    .strictObject(shape)
    .prefault({} as never)
    .meta({ description });
}

const PATHS = 'expected a path or a list of paths';
/** One path, a list of paths, or null (none); always a list once resolved. */
export const paths = () =>
  z
    .union([z.array(z.string({ error: PATHS })), z.string(), z.null()], { error: PATHS })
    .transform((value) => (value === null ? [] : typeof value === 'string' ? [value] : value))
    .prefault([]);

export const count = (fallback: number) => z.int().min(1).default(fallback);
export const flag = (fallback: boolean) => z.boolean().default(fallback);
export const text = (fallback: string) => z.string().default(fallback);
export const optionalText = () => z.string().nullable().default(null);
export const optionalCount = () => z.int().min(1).nullable().default(null);
/** A number >= 0. */
export const amount = (fallback: number) => z.number().min(0).default(fallback);
/** Every so many steps; -1: never. */
export const frequency = (fallback: number) =>
  z
    .int()
    .min(-1)
    .refine((value) => value !== 0, { error: 'expected -1 (never) or a number of steps >= 1' })
    .default(fallback);
export const openMap = () => z.record(z.string(), z.unknown()).default({});

export const ENGINE_REASON = 'this engine needs no such setting';
export const GPU_REASON = 'a setting of the GPU server that the original rolls out with';

/** How the forward passes for some log-probs are cut into micro-batches. */
export const scoringBatchKeys = (what: string) => ({
  log_prob_micro_batch_size_per_gpu: acts(
    optionalCount(),
    `trajectories in one forward for ${what}; null: one question (rollout.n)`,
  ),
  log_prob_use_dynamic_bsz: acts(
    flag(false),
    `micro-batches of about equal work and log_prob_max_token_len_per_gpu tokens for ${what}, over log_prob_micro_batch_size_per_gpu; default: actor.use_dynamic_bsz`,
  ),
  log_prob_max_token_len_per_gpu: acts(
    count(16384),
    'tokens in a micro-batch of log_prob_use_dynamic_bsz; default: actor.ppo_max_token_len_per_gpu',
  ),
});
