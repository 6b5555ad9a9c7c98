export { ProtocolError, WorkerError } from './errors.ts';
export {
  decodeReply,
  decodeRequest,
  encodeFrame,
  type Frame,
  FrameSplitter,
  type JsonObject,
  type Reply,
  type Request,
  type Tensors,
} from './frames.ts';
export { addGradients, readGradients, writeGradientParts, writeGradients } from './gradient-files.ts';
export { createLocalPool, type LocalPoolOptions, LocalTransport } from './local-transport.ts';
export { createPool, type PoolOptions } from './pool.ts';
export { createRayTransport } from './ray/load.ts';
export type { RayTransport, RayTransportOptions } from './ray/ray-transport.ts';
export { removeScratch, SCRATCH_VARIABLE, ScratchFolder, workerFolder } from './scratch-folder.ts';
export type * from './transport.ts';
export type * from './types.ts';
export * from './wire.ts';
export { WorkerProcess, type WorkerProcessOptions } from './worker-process.ts';
export { errorReply, NO_CALL, serveStdin, type WorkerServer } from './worker-server.ts';
