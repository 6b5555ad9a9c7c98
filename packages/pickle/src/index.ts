export * from './error.ts';
export * from './reader.ts';
export * from './value.ts';
export * from './writer.ts';
