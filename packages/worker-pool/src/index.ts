export { ProtocolError, WorkerError } from './errors.ts';
export { createLocalPool, type LocalPoolOptions } from './local-pool.ts';
export type * from './types.ts';
