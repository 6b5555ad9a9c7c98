export {
  type ConnectionInfo,
  type ConnectOptions,
  connectRay,
  type RayClient,
} from './client.ts';
export * from './errors.ts';
export { ActorClass, ActorHandle, ObjectRef, RemoteFunction } from './handles.ts';
export type { LogEntry } from './log-stream.ts';
export type { ActorOptions, MethodOptions, ResourceOptions, TaskOptions } from './options.ts';
export { type PythonCode, pythonModule, pythonSource } from './python.ts';
export { RAY_VERSION } from './ray_client_pb.ts';
export type { RuntimeEnv } from './runtime-env.ts';
export { PythonFloat, PythonTuple } from './values.ts';
export type { ZipEntry } from './zip.ts';
