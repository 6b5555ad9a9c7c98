export * from './merge.ts';
export * from './newest-checkpoint.ts';
