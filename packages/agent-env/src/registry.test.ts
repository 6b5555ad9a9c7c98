import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@frame-thinker/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { FrameSource } from './frame-source.ts';
import { createEnvironmentRegistry } from './registry.ts';

const frames = {} as FrameSource;
let baseDir = '';
beforeAll(() => {
  baseDir = mkdtempSync(join(tmpdir(), 'registry-'));
  writeFileSync(
    join(baseDir, 'echo.mjs'),
    `export default (options) => ({ async reset() {}, async close() {},
      async step(text) { return { frames: [], done: true, reason: 'answer', error: options.word + text }; } });`,
  );
  writeFileSync(join(baseDir, 'none.mjs'), 'export const a = 1;');
  writeFileSync(join(baseDir, 'half.mjs'), 'export default () => ({ async reset() {} });');
});
afterAll(() => rmSync(baseDir, { recursive: true, force: true }));

const create = (name: string, registry: Record<string, string> = {}) =>
  createEnvironmentRegistry({ registry, baseDir, options: { frames, word: 'said ' } }).create(name);

describe('createEnvironmentRegistry', () => {
  it('has ours, and takes modules', async () => {
    expect((await create('think_with_video')).step).toBeTypeOf('function');
    const echo = await create('echo', { echo: 'echo.mjs' });
    expect(await echo.step('hi', createRng(0, 'sample'))).toMatchObject({ error: 'said hi' });
  });
  it('names the known ones', async () => {
    await expect(create('think', { mine: 'echo.mjs' })).rejects.toThrow(
      /"think" is not known; known are think_with_video, mine/,
    );
    await expect(create('constructor')).rejects.toThrow(/not known/);
  });
  it.each([
    ['env.py', /Python is not run/],
    ['gone.mjs', /no such file/],
    ['none.mjs', /no default export/],
    ['half.mjs', /no method step/],
  ])('refuses %s', async (path, message) => {
    await expect(create('mine', { mine: path })).rejects.toThrow(message);
  });
});
