/** @file Which fixtures of the golden tests have test code. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a golden test prints for a file: `golden agent/reward_v11.json: 560 of 560`. */
export const GOLDEN_LINE = /^golden (\S+): (\d+) of (\d+)/;

/**
 * Fixtures of a folder with the layout `<set>/<file>`, as `set/name`: files, and folders as a whole. READMEs are none, and
 * tensors beside a JSON of the same name belong to it.
 */
export function listFixtures(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((set) => set.isDirectory())
    .flatMap((set) =>
      readdirSync(join(folder, set.name))
        .filter((name) => !/^readme/i.test(name) && !name.startsWith('.'))
        .filter((name, _, all) => !name.endsWith('.safetensors') || !all.includes(name.replace(/safetensors$/, 'json')))
        .map((name) => `${set.name}/${name}`),
    )
    .sort();
}

/** Fixtures that no line names and that no source of `tests` mentions by name. */
export function uncovered(
  fixtures: readonly string[],
  { lines, sources }: { lines: readonly string[]; sources: string },
): string[] {
  const printed = lines.flatMap((line) => GOLDEN_LINE.exec(line)?.[1] ?? []);
  return fixtures.filter((fixture) => {
    const name = fixture.split('/')[1] ?? fixture;
    const stem = name.replace(/\.[a-z]+$/, '');
    return !(
      printed.some((other) => other === fixture || other.startsWith(`${fixture}/`)) ||
      new RegExp(`[/'"\`]${stem.replace(/[^\w]/g, '\\$&')}(?:\\.[a-z]+)?[/'"\`]`).test(sources)
    );
  });
}

/** Golden files with unequal rows that no failed test stands for: a test that compares its rows fails by itself. */
export function shortfalls(lines: readonly string[], failed: readonly string[]): string[] {
  if (failed.length > 0) return [];
  return lines.flatMap((line) => {
    const [, file, equal, all] = GOLDEN_LINE.exec(line) ?? [];
    return equal === all ? [] : [`golden ${file}: only ${equal} of ${all}`];
  });
}

/** All TypeScript text of the test folders. */
export function readSources(folders: readonly string[]): string {
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)))
    .filter((file) => file.endsWith('.ts') && !file.includes('node_modules'))
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n');
}
