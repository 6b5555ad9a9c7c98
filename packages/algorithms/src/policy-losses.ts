import type { PolicyLoss } from './types.ts';

/** Policy losses by verl's names. */
export const POLICY_LOSSES: ReadonlyMap<string, PolicyLoss> = new Map();
