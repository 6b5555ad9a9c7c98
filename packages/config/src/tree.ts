/** @file Plain nested values of a configuration, addressed by dotted paths. */

export type Tree = { [key: string]: unknown };

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value at `path`, undefined when there is none. */
export function getPath(tree: unknown, path: readonly string[]): unknown {
  let at: unknown = tree;
  for (const key of path) {
    if (Array.isArray(at)) at = at[Number(key)];
    else if (isTree(at) && Object.hasOwn(at, key)) at = at[key];
    else return undefined;
  }
  return at;
}

/** Sets the value at `path`, making the blocks on the way. Blocks that are merged keep their other keys. */
export function setPath(tree: Tree, path: readonly string[], value: unknown): void {
  const last = path.at(-1)!;
  let at = tree;
  for (const key of path.slice(0, -1)) {
    const next = Object.hasOwn(at, key) ? at[key] : undefined;
    if (isTree(next)) at = next;
    else {
      const made: Tree = {};
      at[key] = made;
      at = made;
    }
  }
  at[last] = value;
}

/** Removes the value at `path`, and blocks that are empty without it. */
export function deletePath(tree: Tree, path: readonly string[]): void {
  const block = getPath(tree, path.slice(0, -1));
  if (!isTree(block)) return;
  delete block[path.at(-1)!];
  if (path.length > 1 && Object.keys(block).length === 0) deletePath(tree, path.slice(0, -1));
}

/** All paths that end in a value (an empty block counts as one). */
export function leafPaths(tree: unknown, prefix: readonly string[] = []): string[][] {
  if (!isTree(tree) || (Object.keys(tree).length === 0 && prefix.length > 0)) return [[...prefix]];
  return Object.entries(tree).flatMap(([key, value]) => leafPaths(value, [...prefix, key]));
}
