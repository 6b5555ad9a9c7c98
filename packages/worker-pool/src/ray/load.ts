/** @file Loads the Ray transport when it is asked for: its gRPC and protobuf would take half of a local worker's start. */
import type { RayTransport, RayTransportOptions } from './ray-transport.ts';

/** Opens a session with the cluster. @throws InputError when there is none under the address, or it asks for another token */
export async function createRayTransport(options: RayTransportOptions): Promise<RayTransport> {
  const transport = await import('./ray-transport.ts');
  return transport.createRayTransport(options);
}
