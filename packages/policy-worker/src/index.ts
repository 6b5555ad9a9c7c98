import { fileURLToPath } from 'node:url';

/** Absolute path of the worker's entry module: what `createLocalPool` starts. */
export const workerEntry = fileURLToPath(new URL('./main.ts', import.meta.url));
