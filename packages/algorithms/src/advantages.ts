import type { AdvantageEstimator } from './types.ts';

/** Advantage estimators by verl's names. */
export const ADVANTAGE_ESTIMATORS: ReadonlyMap<string, AdvantageEstimator> = new Map();
