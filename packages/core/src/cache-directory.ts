/** @file The system's place for files that only save time. */
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Folder for files of one kind that can be made again: below `$XDG_CACHE_HOME/frame-thinker`, or the system's equivalent. */
export function cacheDirectory(kind: string): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (XDG_CACHE_HOME) return join(XDG_CACHE_HOME, 'frame-thinker', kind);
  if (process.platform === 'win32' && LOCALAPPDATA) return join(LOCALAPPDATA, 'frame-thinker', kind);
  const base = process.platform === 'darwin' ? join(homedir(), 'Library', 'Caches') : join(homedir(), '.cache');
  return join(base, 'frame-thinker', kind);
}
