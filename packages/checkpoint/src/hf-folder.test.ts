import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openHfFolder } from './hf-folder.ts';
import { writeHfFolder } from './hf-folder-writer.ts';
import type { TensorSource } from './tensor-source.ts';

let root: string;
let base: string;
afterEach(() => rmSync(root, { recursive: true }));
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'hf-'));
  base = join(root, 'base');
  mkdirSync(base);
  writeFileSync(join(base, 'config.json'), JSON.stringify({ dtype: 'float32', text_config: { dtype: 'float32' } }));
  writeFileSync(join(base, 'tokenizer.json'), '{}');
  writeFileSync(join(base, 'optimizer.pt'), 'not for copying');
});

const source = (name: string, shape: number[], values: number[]): TensorSource => ({
  name,
  shape,
  read: () => Float32Array.from(values),
});
const two = () => [source('a', [2, 2], [1, 2, 3, 4]), source('b', [1], [65536])];

describe('HF folders', () => {
  it('come back, in one file or in shards of any size', async () => {
    const tensors = fc.array(fc.array(fc.float({ noNaN: true }), { maxLength: 5 }), { minLength: 1, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(tensors, fc.integer({ min: 1, max: 100 }), async (lists, maxShardSize) => {
        const dir = join(root, 'out');
        const sources = lists.map((values, i) => source(`t${i}`, [values.length], values));
        const written = await writeHfFolder({ dir, tensors: sources, dtype: 'keep', maxShardSize, copyFrom: base });
        expect([...written.files].sort()).toEqual(readdirSync(dir).sort());
        const folder = openHfFolder(dir);
        expect([...folder.names].sort()).toEqual(sources.map((s) => s.name).sort());
        for (const { name, shape, read } of sources) {
          expect(folder.shape(name)).toEqual(shape);
          expect(folder.read(name)).toEqual(await read());
        }
        folder.close();
      }),
      { numRuns: 20 },
    );
  });

  it('copy config and tokenizer, name the dtype in the config, and count overflow', async () => {
    const dir = join(root, 'out');
    const written = await writeHfFolder({ dir, tensors: two(), dtype: 'fp16', copyFrom: base });
    expect(readdirSync(dir).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8'))).toEqual({
      dtype: 'float16',
      text_config: { dtype: 'float16' },
    });
    expect(written).toMatchObject({ tensors: 2, bytes: 10, overflowed: 1 });
    const folder = openHfFolder(dir);
    expect([...folder.read('a'), ...folder.read('b')]).toEqual([1, 2, 3, 4, Number.POSITIVE_INFINITY]);
    folder.close();
  });

  it('stay as they were when a later write fails half-way, and nothing temporary is left', async () => {
    const dir = join(root, 'out');
    await writeHfFolder({ dir, tensors: two(), dtype: 'keep', copyFrom: base });
    const before = readFileSync(join(dir, 'model.safetensors'));
    const broken: TensorSource = {
      name: 'c',
      shape: [1],
      read: () => {
        throw new InputError('shard: tensor c: truncated');
      },
    };
    await expect(writeHfFolder({ dir, tensors: [...two(), broken], dtype: 'keep', copyFrom: base })).rejects.toThrow(
      'tensor c',
    );
    expect(readFileSync(join(dir, 'model.safetensors')).equals(before)).toBe(true);
    expect(readdirSync(root).sort()).toEqual(['base', 'out']);
  });

  it('come back when a kill fell between the two renames of a replacement', async () => {
    const dir = join(root, 'out');
    await writeHfFolder({ dir: join(root, '.out.replaced'), tensors: two(), dtype: 'keep', copyFrom: base });
    await writeHfFolder({ dir, tensors: [source('new', [1], [1])], dtype: 'keep', copyFrom: base });
    expect(readdirSync(root).sort()).toEqual(['base', 'out']);
    expect(openHfFolder(dir).names).toEqual(['new']);
  });

  it('do not replace a folder that holds other things', async () => {
    const dir = join(root, 'home');
    mkdirSync(dir);
    writeFileSync(join(dir, 'thesis.txt'), 'years');
    await expect(writeHfFolder({ dir, tensors: two(), dtype: 'keep', copyFrom: base })).rejects.toThrow('thesis.txt');
    expect(existsSync(join(dir, 'thesis.txt'))).toBe(true);
  });

  it('name what is wrong', async () => {
    const dir = join(root, 'out');
    expect(() => openHfFolder(base)).toThrow('neither model.safetensors nor model.safetensors.index.json');
    await expect(writeHfFolder({ dir, tensors: two(), dtype: 'keep', copyFrom: root })).rejects.toThrow('config.json');
    await writeHfFolder({ dir, tensors: two(), dtype: 'keep', maxShardSize: 4, copyFrom: base });
    const folder = openHfFolder(dir);
    expect(() => folder.read('zzz')).toThrow('the model has no tensor zzz');
    folder.close();
    truncateSync(join(dir, 'model-00002-of-00002.safetensors'), 70);
    expect(() => openHfFolder(dir)).toThrow(/model-00002-of-00002\.safetensors: .*truncated/);
    rmSync(join(dir, 'model-00002-of-00002.safetensors'));
    expect(() => openHfFolder(dir)).toThrow('model-00002-of-00002.safetensors: cannot be read');
    const index = join(dir, 'model.safetensors.index.json');
    writeFileSync(index, '{"weight_map": {"a": "../x.safetensors"}}');
    expect(() => openHfFolder(dir)).toThrow('tensor a: "../x.safetensors" is not a file name');
    writeFileSync(index, '{"weight_map": {"zzz": "model-00001-of-00002.safetensors"}}');
    expect(() => openHfFolder(dir)).toThrow('has no tensor zzz');
    writeFileSync(index, '{');
    expect(() => openHfFolder(dir)).toThrow(InputError);
  });
});
