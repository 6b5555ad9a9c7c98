/**
 * @file Entry point of a worker on a Ray node. The shipped sources have no node_modules: those of a checkout that is installed on
 * the node are linked beside them. Then this process becomes the worker. Imports nothing that would have to be linked first.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const here = join(import.meta.dirname, '../../../..');
const [checkout = '', entry = ''] = process.argv.slice(2);

interface Manifest {
  version: string;
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}
const manifestOf = (folder: string): Manifest => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));

function link(target: string, place: string): void {
  mkdirSync(dirname(place), { recursive: true });
  try {
    symlinkSync(target, place);
  } catch (error) {
    // Another worker of this node links the same.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** @throws when the checkout lacks a dependency, or has another version of it */
function linkDependencies(folder: string): void {
  const { dependencies = {}, optionalDependencies = {} } = manifestOf(join(here, folder));
  for (const [name, wanted] of Object.entries({ ...dependencies, ...optionalDependencies })) {
    const place = join(here, folder, 'node_modules', name);
    if (wanted.startsWith('workspace:')) {
      link(join(here, 'packages', name.split('/')[1] ?? name), place);
      continue;
    }
    const installed = join(checkout, folder, 'node_modules', name);
    if (!existsSync(installed)) {
      if (name in optionalDependencies) continue;
      throw new Error(`${installed} is not there: run pnpm install in ${checkout} on this node`);
    }
    const { version } = manifestOf(installed);
    if (version !== wanted)
      throw new Error(`${installed} is version ${version}, ${wanted} is needed: run pnpm install in ${checkout}`);
    link(realpathSync(installed), place);
  }
}

for (const folder of ['.', ...readdirSync(join(here, 'packages')).map((name) => join('packages', name))])
  linkDependencies(folder);
await import(pathToFileURL(join(here, entry)).href);
