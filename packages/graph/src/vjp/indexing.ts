/** @file VJP rules of indexing ops: gathers and scatters are each other's transposes. */
import type { VjpRules } from './rule.ts';

export const INDEXING_RULES: VjpRules = {
  gather_rows: ({ g, inputs: [table, indices], d }) => [g.scatterAddRows(d, indices!, table!.shape[0]!), undefined],
  scatter_add_rows: ({ g, inputs: [, indices], d }) => [g.gatherRows(d, indices!), undefined],
  take_along_last: ({ g, inputs: [x, indices], d }) => [g.scatterAddLast(d, indices!, x!.shape.at(-1)!), undefined],
  scatter_add_last: ({ g, inputs: [, indices], d }) => [g.takeAlongLast(d, indices!), undefined],
};
