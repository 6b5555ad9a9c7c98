/** @file The runtime environment of a session: the working directory is packed here and given to the cluster. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { RayRuntimeEnvError } from './errors.ts';
import { writeZip, type ZipEntry } from './zip.ts';

/** What Ray's KV store takes as a package. */
const MAX_BYTES = 100 * 2 ** 20;

export interface RuntimeEnv {
  /**
   * What the nodes unpack and run in: a folder of this machine, files by their path in the archive, or a URI that Ray knows
   * (gcs://, https://, s3:// … ending in .zip).
   */
  workingDir?: string | readonly ZipEntry[];
  envVars?: Readonly<Record<string, string>>;
  /** Python packages that pip installs on the nodes. */
  pip?: readonly string[];
}

const isUri = (text: string): boolean => /^[a-z0-9+]+:\/\//.test(text);

function filesBelow(folder: string, prefix = ''): ZipEntry[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return filesBelow(path, `${prefix}${entry.name}/`);
    if (!entry.isFile()) return [];
    const executable = (statSync(path).mode & 0o111) !== 0;
    return [{ name: `${prefix}${entry.name}`, data: readFileSync(path), executable }];
  });
}

export interface PreparedEnv {
  /** As Ray's JobConfig takes it. */
  fields: Record<string, unknown>;
  /** A package to store under `uri` before the session begins. */
  upload?: { uri: string; data: Uint8Array };
}

function refuse(message: string): never {
  throw new RayRuntimeEnvError({ type: 'ray.exceptions.RuntimeEnvSetupError', message, traceback: '' });
}

function readFolder(folder: string): ZipEntry[] {
  try {
    return filesBelow(folder);
  } catch (error) {
    return refuse(`the working directory ${folder} can't be read: ${error instanceof Error ? error.message : error}`);
  }
}

/** Packs the working directory. @throws RayRuntimeEnvError when it can't be read, or is larger than Ray takes */
export function prepareRuntimeEnv({ workingDir, envVars, pip }: RuntimeEnv): PreparedEnv {
  const fields: Record<string, unknown> = {
    ...(envVars ? { env_vars: envVars } : {}),
    ...(pip ? { pip } : {}),
  };
  if (workingDir === undefined) return { fields };
  if (typeof workingDir === 'string' && isUri(workingDir)) return { fields: { ...fields, working_dir: workingDir } };
  const entries = typeof workingDir === 'string' ? readFolder(workingDir) : workingDir;
  const data = writeZip([...entries].sort((a, b) => (a.name < b.name ? -1 : 1)));
  if (data.byteLength > MAX_BYTES)
    refuse(
      `the working directory has ${data.byteLength} bytes packed, Ray takes ${MAX_BYTES}; leave out what the nodes have already`,
    );
  const uri = `gcs://_ray_pkg_${createHash('sha256').update(data).digest('hex').slice(0, 16)}.zip`;
  return { fields: { ...fields, working_dir: uri }, upload: { uri, data } };
}
