/** @file The newest merged model of the runs. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Where the closing lines of a training say to merge to: `<run>/merged`. */
const MERGED = 'merged';

function mergedFolders(folder: string, depth: number): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (!entry.isDirectory() || entry.name.startsWith('.') || /^global_step_\d+$/.test(entry.name)) return [];
    if (entry.name === MERGED) return existsSync(join(path, 'config.json')) ? [path] : [];
    return depth > 0 ? mergedFolders(path, depth - 1) : [];
  });
}

/** The `merged` folder below `runsRoot` that was written last; null when there is none. */
export function newestMergedModel(runsRoot: string): string | null {
  if (!existsSync(runsRoot)) return null;
  const folders = mergedFolders(runsRoot, 4).map((path) => ({
    path,
    time: statSync(join(path, 'config.json')).mtimeMs,
  }));
  folders.sort((a, b) => b.time - a.time || a.path.localeCompare(b.path));
  return folders[0]?.path ?? null;
}
