import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const layers: Record<string, number> = JSON.parse(readFileSync(join(root, 'tests/layers.json'), 'utf8'));
const sources = (name: string): string[] =>
  readdirSync(join(root, 'packages', name, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.ts'))
    .map((f) => join(root, 'packages', name, 'src', f));

describe('layers', () => {
  it('has a layer for every package', () => {
    expect(readdirSync(join(root, 'packages')).sort()).toEqual(Object.keys(layers).sort());
  });

  it.each(Object.keys(layers))('%s imports only from lower layers, and only what its package.json names', (name) => {
    const manifest = JSON.parse(readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'));
    const known = new Set(Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }));
    const wrong: string[] = [];
    for (const file of sources(name)) {
      const test = file.endsWith('.test.ts');
      for (const [, specifier = ''] of readFileSync(file, 'utf8').matchAll(/(?:from|import)\s*\(?\s*'([\w@./:-]+)'/g)) {
        const [, other] = /^@frame-thinker\/([^/]+)/.exec(specifier) ?? [];
        if (other && layers[other]! >= layers[name]! && !test)
          wrong.push(`${file}: ${specifier} is not in a lower layer`);
        if (specifier.startsWith('.') || specifier.startsWith('node:') || test) continue;
        const pkg = specifier
          .split('/')
          .slice(0, specifier.startsWith('@') ? 2 : 1)
          .join('/');
        if (!known.has(pkg)) wrong.push(`${file}: ${pkg} is not in ${name}/package.json`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('keeps files at 500 lines or fewer', () => {
    const long = Object.keys(layers)
      .flatMap(sources)
      .filter((f) => !f.endsWith('_pb.ts'))
      .filter((f) => readFileSync(f, 'utf8').split('\n').length > 500);
    expect(long).toEqual([]);
  });
});
