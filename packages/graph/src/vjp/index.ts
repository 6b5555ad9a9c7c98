/** @file The table of VJP rules. */
import type { OpName } from '../ops.ts';
import { ELEMENTWISE_RULES } from './elementwise.ts';
import { INDEXING_RULES } from './indexing.ts';
import { LINALG_RULES } from './linalg.ts';
import { MOVEMENT_RULES } from './movement.ts';
import { NORMALISATION_RULES } from './normalisation.ts';
import type { VjpRules } from './rule.ts';

export const VJP_RULES: VjpRules = {
  ...ELEMENTWISE_RULES,
  ...MOVEMENT_RULES,
  ...LINALG_RULES,
  ...INDEXING_RULES,
  ...NORMALISATION_RULES,
};

/** Ops without a rule: leaves, and comparisons, whose result is no float. */
export const NON_DIFFERENTIABLE: ReadonlySet<OpName> = new Set([
  'input',
  'parameter',
  'constant',
  'less_equal',
  'equal',
]);
