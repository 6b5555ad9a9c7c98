export { type BatchTable, batchTable, printBatches } from './batches.ts';
export { type KeyInfo, keysOf } from './keys.ts';
export * from './load.ts';
export { referencePage } from './reference-page.ts';
export type { Effect, FieldMeta } from './schema/field.ts';
export { type TrainConfig, trainSchema } from './schema/train.ts';
export { isOverride, parseValue } from './source.ts';
export { editDistance, nearest } from './suggest.ts';
