import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  bytesOf,
  openHfFolder,
  openSafetensors,
  PIECE_LIMIT,
  pieceMemory,
  type RangedTensor,
} from '@frame-thinker/checkpoint';
import { pickleDict } from '@frame-thinker/pickle';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { foldLora } from './lora.ts';
import { type MergeOptions, mergeCheckpoint } from './merge.ts';
import { TorchFile } from './testing/torch-file.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'lora-'));
  for (const name of ['actor', 'base']) mkdirSync(join(root, name));
  writeFileSync(join(root, 'base/config.json'), '{}');
});
afterEach(() => rmSync(root, { recursive: true }));

const values = (count: number, seed: number) => new Float32Array(count).map((_, i) => Math.sin(i * seed + seed));

/** W [rows, columns] of one rank, with LoRA of rank r. */
function write(rows: number, columns: number, r: number) {
  const [w, a, b] = [values(rows * columns, 3), values(r * columns, 5), values(rows * r, 7)];
  const file = new TorchFile();
  const name = 'base_model.model.layer';
  const entries = [
    [`${name}.base_layer.weight`, file.tensor('F32', [rows, columns], bytesOf(w))],
    [`${name}.lora_A.default.weight`, file.tensor('F32', [r, columns], bytesOf(a))],
    [`${name}.lora_B.default.weight`, file.tensor('F32', [rows, r], bytesOf(b))],
  ] as const;
  file.save(join(root, 'actor/model_world_size_1_rank_0.pt'), pickleDict(entries, true));
  return { w, a, b };
}
const writeMeta = (meta: object) => writeFileSync(join(root, 'actor/lora_train_meta.json'), JSON.stringify(meta));
const merge = (options: Partial<MergeOptions> = {}) =>
  mergeCheckpoint({
    backend: 'fsdp',
    localDir: join(root, 'actor'),
    hfModelPath: join(root, 'base'),
    targetDir: join(root, 'out'),
    dtype: 'keep',
    ...options,
  });

describe('folding', () => {
  it.each([
    ['a small A', 50, 700, 4],
    ['rows longer than a piece of a tensor', 3, 1_000_000, 1],
    ['an A that is read in parts', 3, 600_000, 3],
  ])('%s gives W + alpha/r · B·A in double precision', async (_what, rows, columns, r) => {
    const { w, a, b } = write(rows, columns, r);
    pieceMemory();
    await merge({ loraAlpha: 5 });
    expect(pieceMemory().peak).toBeLessThanOrEqual(PIECE_LIMIT);
    const folder = openHfFolder(join(root, 'out'));
    const found = folder.read('layer.weight');
    folder.close();
    let wrong = 0;
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let k = 0; k < r; k++) sum += b[i * r + k]! * a[k * columns + j]!;
        if (found[i * columns + j] !== Math.fround(w[i * columns + j]! + (5 / r) * sum)) wrong++;
      }
    expect(wrong).toBe(0);
  });
});

/** A tensor by a rule; `onRead` runs within each read. */
function ruled(shape: [number, number], rule: (i: number) => number, onRead = () => {}): RangedTensor {
  return {
    dtype: 'F32',
    shape,
    fingerprint: null,
    read: (begin, target) => {
      onRead();
      const floats = new Float32Array(target.buffer, target.byteOffset, target.byteLength / 4);
      for (let i = 0; i < floats.length; i++) floats[i] = rule(begin + i);
    },
  };
}

it('however large the rank is, few rows of B are in memory', async () => {
  const { setFlagsFromString } = await import('node:v8');
  const { runInNewContext } = await import('node:vm');
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const [rows, columns, r] = [4096, 8, 500];
  const target = new Uint8Array(rows * columns * 4);
  const inMemory = () => {
    collect();
    return process.memoryUsage().arrayBuffers;
  };
  // Buffers that went before are swept in the background.
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const before = inMemory();
  let [most, reads] = [0, 0];
  const a = ruled(
    [r, columns],
    (i) => i % 5,
    () => {
      most = Math.max(most, inMemory() - before);
      reads++;
    },
  );
  const b = ruled([rows, r], (i) => (i % 7) - Math.floor(i / r) / 64);
  foldLora(
    ruled([rows, columns], (i) => i),
    { a, b },
    0.5,
    'x',
  ).read(0, target);
  expect(reads).toBeGreaterThan(0);
  expect(most).toBeLessThan(4e6);
  const found = new Float32Array(target.buffer);
  for (const i of [0, columns + 3, 200 * columns + 1, rows * columns - 1]) {
    const [row, column] = [Math.floor(i / columns), i % columns];
    let sum = 0;
    for (let k = 0; k < r; k++) sum += (((row * r + k) % 7) - row / 64) * ((k * columns + column) % 5);
    expect(found[i]).toBe(Math.fround(i + 0.5 * sum));
  }
});

it('a rank beyond all use is refused', () => {
  const [a, b] = [ruled([70_000, 2], () => 0), ruled([3, 70_000], () => 0)];
  expect(() =>
    foldLora(
      ruled([3, 2], () => 0),
      { a, b },
      1,
      'x.pt: tensor w',
    ),
  ).toThrow('x.pt: tensor w: LoRA of rank 70000; up to 65536 is folded');
});

describe('alpha', () => {
  it.each<[string, object | null, number | undefined, RegExp]>([
    ['missing', null, undefined, /lora_train_meta\.json: missing, and it names LoRA's alpha; give --lora-alpha/],
    ['0 in the file', { r: 2, lora_alpha: 0 }, undefined, /lora_train_meta\.json: alpha 0 is not a positive number/],
    ['0 as a flag', { r: 2, lora_alpha: 4 }, 0, /--lora-alpha: alpha 0 is not a positive number/],
    ['no number', { r: 2, lora_alpha: '4' }, undefined, /alpha "4" is not a positive number/],
    ['of another rank', { r: 3, lora_alpha: 4 }, undefined, /r is 3, the shards' LoRA has rank 2/],
  ])('%s is refused, and nothing is written', async (_what, meta, loraAlpha, message) => {
    write(4, 6, 2);
    if (meta) writeMeta(meta);
    for (const lora of ['merge', 'adapter'] as const)
      await expect(merge({ lora, ...(loraAlpha === undefined ? {} : { loraAlpha }) })).rejects.toThrow(message);
    expect(existsSync(join(root, 'out'))).toBe(false);
  });
});

it('an adapter lies beside the base weights, with its alpha', async () => {
  const { w, a, b } = write(4, 6, 2);
  writeMeta({ r: 2, lora_alpha: 16, task_type: 'CAUSAL_LM' });
  await merge({ lora: 'adapter' });
  const out = join(root, 'out');
  expect(readdirSync(join(out, 'lora_adapter')).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
  expect(JSON.parse(readFileSync(join(out, 'lora_adapter/adapter_config.json'), 'utf8'))).toMatchObject({
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    r: 2,
    lora_alpha: 16,
    target_modules: ['layer'],
  });
  const base = openHfFolder(out);
  expect(base.read('layer.weight')).toEqual(w);
  base.close();
  const bytes = readFileSync(join(out, 'lora_adapter/adapter_model.safetensors'));
  const data = bytes.subarray(8 + Number(bytes.readBigUInt64LE()));
  for (const half of [a, b]) expect(data.includes(Buffer.from(bytesOf(half)))).toBe(true);
});

describe("what else PEFT's names can say", () => {
  const matrix = (seed: number) => values(8, seed);
  const save = (tensors: [string, Float32Array, number[]][]) => {
    const file = new TorchFile();
    const entries = tensors.map(([name, data, shape]) => [name, file.tensor('F32', shape, bytesOf(data))] as const);
    file.save(join(root, 'actor/model_world_size_1_rank_0.pt'), pickleDict(entries, true));
  };
  const lora: [string, Float32Array, number[]][] = [
    ['base_model.model.q.base_layer.weight', matrix(1), [4, 2]],
    ['base_model.model.q.lora_A.default.weight', values(2, 2), [1, 2]],
    ['base_model.model.q.lora_B.default.weight', values(4, 3), [4, 1]],
  ];
  const withHead = (adapter = 'default'): typeof lora => [
    ...lora,
    ['base_model.model.head.original_module.weight', matrix(4), [4, 2]],
    [`base_model.model.head.modules_to_save.${adapter}.weight`, matrix(5), [4, 2]],
  ];
  const read = (path = 'out') => {
    const folder = openHfFolder(join(root, path));
    const found = Object.fromEntries(folder.names.map((name) => [name, folder.read(name)]));
    folder.close();
    return found;
  };

  it('modules_to_save take the place of the originals where LoRA is folded in', async () => {
    save(withHead());
    const { notes } = await merge({ loraAlpha: 2 });
    expect(Object.keys(read()).sort()).toEqual(['head.weight', 'q.weight']);
    expect(read()['head.weight']).toEqual(matrix(5));
    expect(notes.join()).toContain('1 tensors of modules_to_save take the place');
  });

  it('and lie in the adapter, the originals in the base, where it is kept apart', async () => {
    save(withHead());
    await merge({ loraAlpha: 2, lora: 'adapter' });
    expect(read()['head.weight']).toEqual(matrix(4));
    const file = openSafetensors(join(root, 'out/lora_adapter/adapter_model.safetensors'));
    expect([...file.header.entries.keys()].sort()).toEqual([
      'base_model.model.head.weight',
      'base_model.model.q.lora_A.weight',
      'base_model.model.q.lora_B.weight',
    ]);
    file.close();
    const config = JSON.parse(readFileSync(join(root, 'out/lora_adapter/adapter_config.json'), 'utf8'));
    expect(config).toMatchObject({ target_modules: ['q'], modules_to_save: ['head'], use_rslora: false });
  });

  it('of another adapter, or a name twice, are refused', async () => {
    save(withHead('other'));
    await expect(merge({ loraAlpha: 2 })).rejects.toThrow(/modules_to_save\.other\.weight: a kind of adapter/);
    save([...lora, ['base_model.model.q.weight', matrix(6), [4, 2]]]);
    await expect(merge({ loraAlpha: 2 })).rejects.toThrow(/q\.weight is there already under another name/);
  });

  it('rank-stabilised LoRA is scaled by alpha over the root of the rank', async () => {
    const { w, a, b } = write(4, 6, 4);
    writeMeta({ r: 4, lora_alpha: 8, use_rslora: true });
    await merge();
    const sum = (i: number, j: number) => [0, 1, 2, 3].reduce((s, k) => s + b[i * 4 + k]! * a[k * 6 + j]!, 0);
    expect([...read()['layer.weight']!]).toEqual(
      [...w].map((x, i) => Math.fround(x + 4 * sum(Math.floor(i / 6), i % 6))),
    );
    writeMeta({ r: 4, lora_alpha: 8, alpha_pattern: { q: 3 } });
    await expect(merge()).rejects.toThrow(/alpha_pattern \{"q":3\} is not read/);
  });
});
