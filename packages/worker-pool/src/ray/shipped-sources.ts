/** @file What travels to the Ray nodes: this checkout's sources and the shim, without tests and dependencies. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { ZipEntry } from '@frame-thinker/ray-client';

/** Of this checkout. */
export const ROOT = join(import.meta.dirname, '../../../..');
export const SHIM_MODULE = 'node_worker';

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.test.ts'))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes('/testing/'));
}

/** The working directory of the runtime environment. Equal sources give equal archives, which a cluster keeps. */
export function shippedSources(): ZipEntry[] {
  const packages = readdirSync(join(ROOT, 'packages')).map((name) => join(ROOT, 'packages', name));
  const { type, dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  const files = packages.flatMap((folder) => [join(folder, 'package.json'), ...filesOf(join(folder, 'src'))]);
  return [
    { name: 'package.json', data: Buffer.from(JSON.stringify({ type, dependencies })) },
    { name: `${SHIM_MODULE}.py`, data: readFileSync(join(import.meta.dirname, `${SHIM_MODULE}.py`)) },
    ...files.map((file) => ({ name: relative(ROOT, file), data: readFileSync(file) })),
  ];
}
