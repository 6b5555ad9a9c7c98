export * from './answers.ts';
export { cacheDirectory } from './cache-directory.ts';
export * from './errors.ts';
export * from './files.ts';
export * from './progress.ts';
export * from './python-text.ts';
export * from './random.ts';
export * from './tagged-blocks.ts';
export * from './types.ts';
