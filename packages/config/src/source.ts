/** @file Where values come from: a YAML file or `key=value` items, each with a place to name in errors. */
import { readFileSync } from 'node:fs';
import { InputError, messageOf } from '@frame-thinker/core';
import { isMap, isScalar, LineCounter, parse, parseDocument, visit } from 'yaml';
import { setPath, type Tree } from './tree.ts';

/** Values with the place of each key and block, by dotted path: `file:line:column`, or the item itself. */
export interface Source {
  tree: Tree;
  places: Map<string, string>;
}

/**
 * Reads a YAML file.
 * @throws InputError when it can't be read, is not YAML, or not a map.
 */
export function readYamlFile(file: string): Source {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new InputError(missing ? `${file}: there is no such file` : `${file}: cannot be read (${messageOf(error)})`);
  }
  return parseYaml(textOf(bytes, file), file);
}

/** @throws InputError when the bytes are not UTF-8 text. */
function textOf(bytes: Uint8Array, file: string): string {
  try {
    if (!bytes.includes(0)) return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    // Told below.
  }
  throw new InputError(`${file}: not a text file`);
}

/** Parses YAML text; `name` stands for the file in places and errors. */
export function parseYaml(text: string, name: string): Source {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const place = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}`;
  };
  // Where a bracket is missing the parser complains of everything after it too: the first is what is wrong.
  const [problem] = [...document.errors, ...document.warnings];
  if (problem) throw new InputError(`${place(problem.pos[0])} ${problem.message.split(/ at line|\n/)[0]}`);
  const places = new Map<string, string>();
  if (document.contents === null) return { tree: {}, places };
  if (!isMap(document.contents)) throw new InputError(`${name}:1:1 expected keys like "trainer:", got something else`);
  visit(document, {
    Pair(_, pair, parents) {
      if (!isScalar(pair.key)) return;
      const path = parents
        .filter((parent) => typeof parent === 'object' && 'key' in parent && isScalar(parent.key))
        .map((parent) => String((parent as unknown as { key: { value: unknown } }).key.value));
      places.set([...path, String(pair.key.value)].join('.'), place(pair.key.range?.[0] ?? 0));
    },
  });
  return { tree: document.toJS({ maxAliasCount: 100 }) as Tree, places };
}

const OVERRIDE = /^(?:\+{0,2})([A-Za-z_][\w-]*(?:\.[\w-]+)*)=([\s\S]*)$/;
const FLOW = /^\s*[[{"']/;
/** Quoted text, or a bare word that holds `${a.b}`, which YAML's flow style would take apart. */
const FLOW_WORD = /"(?:\\.|[^"\\])*"|'[^']*'|[^\s,[\]{}"']*\$\{[\w.-]+\}(?:[^\s,[\]{}"']|\{[\w.-]+\})*/g;

/** Whether a command-line word is meant as `key=value`. */
export function isOverride(word: string): boolean {
  return OVERRIDE.test(word);
}

/**
 * The value of a `key=value` item: true/True, null, numbers, quoted text, `[a, b]`, `{a: b}`; anything else is text.
 * @throws Error (yaml) when brackets or quotes don't close.
 */
export function parseValue(text: string): unknown {
  if (FLOW.test(text)) return parse(text.replace(FLOW_WORD, (word) => (/^["']/.test(word) ? word : `"${word}"`)));
  const trimmed = text.trim();
  // YAML's plain scalars; what would need quotes in YAML ("a: b", "# x", "") is text here.
  if (/^(?:true|false|null|~|[-+.]?[\d.][\w.+-]*|[-+]?\.(?:inf|nan))$/i.test(trimmed)) return parse(trimmed);
  return text;
}

/**
 * Reads `key=value` items, later ones winning. `+key=value` is the same as `key=value`: unknown keys are refused either way.
 * @throws InputError naming the item.
 */
export function readOverrides(items: readonly string[]): Source {
  const tree: Tree = {};
  const places = new Map<string, string>();
  for (const item of items) {
    const match = OVERRIDE.exec(item);
    if (!match) throw new InputError(`command line: "${item}": expected key=value, e.g. trainer.save_freq=5`);
    const [, key = '', text = ''] = match;
    const path = key.split('.');
    if (path.includes('__proto__')) throw new InputError(`command line: ${item}: unknown key`);
    let value: unknown;
    try {
      value = parseValue(text);
    } catch (error) {
      throw new InputError(`command line: ${item}: ${messageOf(error).split(/ at line|\n/)[0]}`);
    }
    setPath(tree, path, value);
    for (let depth = 1; depth <= path.length; depth++)
      places.set(path.slice(0, depth).join('.'), `command line: ${item}:`);
  }
  return { tree, places };
}
