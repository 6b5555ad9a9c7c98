/** @file `${a.b}`: another key's value. */
import { InputError } from '@frame-thinker/core';
import { getPath, isTree, type Tree } from './tree.ts';

const REFERENCE = /\$\{([\w.-]+)\}/g;

/**
 * Replaces every `${a.b}` in the texts of `tree` by the value of that key: as it is when the text is nothing else,
 * written out when it stands within text. Values are looked up in `tree`, then in `defaults`.
 * @param where the place of a key, for errors
 * @throws InputError on a key that does not exist or refers to itself.
 */
export function interpolate(tree: Tree, defaults: Tree, where: (path: readonly string[]) => string): Tree {
  const lookUp = (key: string, from: readonly string[], chain: readonly string[]): unknown => {
    if (chain.includes(key))
      throw new InputError(
        `${where(from)} ${from.join('.')}: \${${key}} refers to itself (${[...chain, key].join(' → ')})`,
      );
    const path = key.split('.');
    const own = getPath(tree, path);
    const value = own === undefined ? getPath(defaults, path) : own;
    if (value === undefined) throw new InputError(`${where(from)} ${from.join('.')}: \${${key}}: there is no such key`);
    return resolve(value, from, [...chain, key]);
  };
  const resolve = (value: unknown, path: readonly string[], chain: readonly string[]): unknown => {
    if (typeof value === 'string') {
      const whole = /^\$\{([\w.-]+)\}$/.exec(value);
      if (whole) return lookUp(whole[1]!, path, chain);
      return value.replace(REFERENCE, (_, key: string) => {
        const found = lookUp(key, path, chain);
        if (typeof found === 'object' && found !== null)
          throw new InputError(`${where(path)} ${path.join('.')}: \${${key}} is not a single value`);
        return String(found);
      });
    }
    if (Array.isArray(value)) return value.map((item, i) => resolve(item, [...path, String(i)], chain));
    if (isTree(value))
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, [...path, k], chain)]));
    return value;
  };
  return resolve(tree, [], []) as Tree;
}
