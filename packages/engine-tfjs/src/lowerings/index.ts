/** @file The table of lowerings, one entry an op. */
import { ELEMENTWISE } from './elementwise.ts';
import { INDEXING } from './indexing.ts';
import type { LoweredOp, Lowerings } from './lowering.ts';
import { MATMUL } from './matmul.ts';
import { MOVEMENT } from './movement.ts';
import { NORMALISATION } from './normalisation.ts';
import { REDUCTION } from './reduction.ts';

export const LOWERINGS: Lowerings<LoweredOp> = {
  ...ELEMENTWISE,
  ...MOVEMENT,
  ...REDUCTION,
  ...MATMUL,
  ...INDEXING,
  ...NORMALISATION,
};
