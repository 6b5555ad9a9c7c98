export * from './compare.ts';
export * from './merge.ts';
export * from './newest-checkpoint.ts';
export * from './newest-model.ts';
