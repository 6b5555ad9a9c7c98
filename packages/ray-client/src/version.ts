/** @file Whether this client speaks the cluster's protocol: the server never asks, so the client does. */
import { RayVersionError } from './errors.ts';
import { RAY_VERSION } from './ray_client_pb.ts';

/** @throws RayVersionError for another major version; another minor one is a warning. */
export function checkVersion(running: string, onWarning?: (message: string) => void): void {
  const [major, minor] = running.split('.');
  const [knownMajor, knownMinor] = RAY_VERSION.split('.');
  const what = `the cluster runs Ray ${running}, this client speaks the protocol of Ray ${RAY_VERSION}`;
  if (major !== knownMajor) throw new RayVersionError(`${what}: another major version is not tried`);
  if (minor !== knownMinor)
    onWarning?.(`${what}: if calls fail, install Ray ${knownMajor}.${knownMinor} on the cluster`);
}
