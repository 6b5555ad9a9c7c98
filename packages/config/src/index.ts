export * from './load.ts';
export type { Effect, FieldMeta } from './schema/field.ts';
export { type TrainConfig, trainSchema } from './schema/train.ts';
