/** @file The newest checkpoint of the newest run, for a merge that is told only where to write. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { findLatestCheckpoint, LATEST_FILE } from '@frame-thinker/checkpoint';

/** Files that name a run's latest checkpoint, below `folder`: runs/<project>/<experiment> is two deep. */
function latestFiles(folder: string, depth: number): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isFile()) return entry.name === LATEST_FILE ? [path] : [];
    const isRunPart = /^global_step_\d+$/.test(entry.name) || entry.name.startsWith('.');
    return entry.isDirectory() && depth > 0 && !isRunPart ? latestFiles(path, depth - 1) : [];
  });
}

/**
 * The newest checkpoint of the newest run: the run whose latest_checkpointed_iteration.txt was written last. Null when
 * no run below `runsRoot` has one.
 * @throws InputError when that file is damaged.
 */
export function newestCheckpoint(runsRoot: string): { runDir: string; step: number; dir: string } | null {
  if (!existsSync(runsRoot)) return null;
  const files = latestFiles(runsRoot, 4).map((path) => ({ path, time: statSync(path).mtimeMs }));
  files.sort((a, b) => b.time - a.time || a.path.localeCompare(b.path));
  const [newest] = files;
  if (!newest) return null;
  const runDir = dirname(newest.path);
  const latest = findLatestCheckpoint(runDir);
  return latest && { runDir, ...latest };
}
