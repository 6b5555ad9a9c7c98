/** @file Where a cluster is, and the token that opens it. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { RayConnectionError } from './errors.ts';

const DEFAULT_PORT = 10001;

/** `ray://host:port` as `host:port`. */
export function parseAddress(address: string): string {
  const match = /^ray:\/\/(?:\[([0-9a-fA-F:]+)\]|([^/:[\]]+))(?::(\d{1,5}))?\/?$/.exec(address);
  const port = Number(match?.[3] ?? DEFAULT_PORT);
  if (!match || port < 1 || port > 65_535)
    throw new RayConnectionError(`${JSON.stringify(address)} is no address of a cluster: expected ray://host:port`);
  return `${match[1] ? `[${match[1]}]` : match[2]}:${port}`;
}

/** The token as Ray's own programs find it, where RAY_AUTH_MODE asks for one. @throws RayConnectionError where there is none */
export function findToken(env: NodeJS.ProcessEnv): string | undefined {
  if (env.RAY_AUTH_MODE !== 'token') return undefined;
  if (env.RAY_AUTH_TOKEN) return env.RAY_AUTH_TOKEN;
  const path = env.RAY_AUTH_TOKEN_PATH ?? join(homedir(), '.ray/auth_token');
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    throw new RayConnectionError(
      `RAY_AUTH_MODE=token, but there is no token: set RAY_AUTH_TOKEN, or write it to ${path}`,
    );
  }
}

/** A token that a header can hold. @throws RayConnectionError, without the token, where it can't */
export function checkToken(token: string): string {
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new RayConnectionError(
    'the token is empty, or has a space, a line break or another character that no header holds',
  );
}
