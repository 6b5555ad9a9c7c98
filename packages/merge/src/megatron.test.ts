import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf, openHfFolder } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { type PickleValue, pickleDict, pickleList } from '@frame-thinker/pickle';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type MergeOptions, mergeCheckpoint } from './merge.ts';
import { TorchFile } from './testing/torch-file.ts';

const LAYERS = 6;
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'megatron-'));
  mkdirSync(join(root, 'base'));
  const config = { vocab_size: 4, num_hidden_layers: LAYERS, architectures: ['Qwen2ForCausalLM'] };
  writeFileSync(join(root, 'base/config.json'), JSON.stringify(config));
});
afterEach(() => rmSync(root, { recursive: true }));

const rankDir = (tensorRank: number, pipelineRank: number) =>
  join(root, 'actor', `mp_rank_0${tensorRank}_00${pipelineRank}`);

/** A model whose values say where they belong: layer L of tensor rank T has 100·T + L in its second linear layer. */
function write({ tp, pp, virtual, leave = '' }: { tp: number; pp: number; virtual: number; leave?: string }): void {
  const stages = pp * virtual;
  const each = LAYERS / stages;
  for (let t = 0; t < tp; t++)
    for (let p = 0; p < pp; p++) {
      const file = new TorchFile();
      const filled = (rows: number, value: number) =>
        file.tensor('F32', [rows, 2], bytesOf(new Float32Array(2 * rows).fill(value)));
      const chunks = Array.from({ length: virtual }, (_, v) => {
        const stage = v * pp + p;
        const tensors: [string, PickleValue][] = [];
        if (stage === 0) tensors.push(['embedding.word_embeddings.weight', filled(4 / tp, 100 * t - 1)]);
        for (let layer = 0; layer < each; layer++)
          tensors.push([`decoder.layers.${layer}.mlp.linear_fc2.weight`, filled(3, 100 * t + stage * each + layer)]);
        if (stage === stages - 1)
          tensors.push(
            ['decoder.final_layernorm.weight', file.tensor('F32', [2], bytesOf(Float32Array.of(7, 8)))],
            ['output_layer.weight', filled(4 / tp, 100 * t - 2)],
          );
        return pickleDict(
          tensors.filter(([name]) => name !== leave),
          true,
        );
      });
      mkdirSync(rankDir(t, p), { recursive: true });
      file.save(join(rankDir(t, p), 'model.pt'), virtual > 1 ? pickleList(...chunks) : chunks[0]!);
    }
}

const merge = (options: Partial<MergeOptions> = {}) =>
  mergeCheckpoint({
    backend: 'megatron',
    localDir: join(root, 'actor'),
    hfModelPath: join(root, 'base'),
    targetDir: join(root, 'out'),
    dtype: 'keep',
    ...options,
  });

const swap = (a: string, b: string): void => {
  renameSync(a, `${a}-kept`);
  renameSync(b, a);
  renameSync(`${a}-kept`, b);
};
/** The file stays where it is named. */
const copyOver = (from: string, to: string): void => cpSync(join(from, 'model.pt'), join(to, 'model.pt'));

describe('stages of a pipeline', () => {
  it.each([
    { tp: 1, pp: 3, virtual: 1 },
    { tp: 2, pp: 3, virtual: 1 },
    { tp: 2, pp: 3, virtual: 2 },
    { tp: 1, pp: 1, virtual: 3 },
  ])('tensor $tp, pipeline $pp, virtual $virtual: every layer comes from its stage', async (layout) => {
    write(layout);
    await merge();
    const folder = openHfFolder(join(root, 'out'));
    for (let layer = 0; layer < LAYERS; layer++) {
      const found = [...folder.read(`model.layers.${layer}.mlp.down_proj.weight`)];
      const row = Array.from({ length: layout.tp }, (_, t) => [100 * t + layer, 100 * t + layer]).flat();
      expect(found).toEqual([...row, ...row, ...row]);
    }
    folder.close();
  });

  const layouts = [
    { tp: 1, pp: 3, virtual: 1 },
    { tp: 2, pp: 3, virtual: 1 },
    { tp: 2, pp: 3, virtual: 2 },
  ];
  const spoiled: [string, () => void, RegExp][] = [
    [
      'the first copied over the second',
      () => copyOver(rankDir(0, 0), rankDir(0, 1)),
      /001.model\.pt: holds the same tensors as .*000.model\.pt; a rank is there twice/,
    ],
    [
      'the second copied over the last',
      () => copyOver(rankDir(0, 1), rankDir(0, 2)),
      /002.model\.pt: holds the same tensors as .*001.model\.pt; a rank is there twice/,
    ],
    [
      'the first and the second swapped',
      () => swap(rankDir(0, 0), rankDir(0, 1)),
      /embedding\.word_embeddings|missing/,
    ],
    [
      'the second and the last swapped',
      () => swap(rankDir(0, 1), rankDir(0, 2)),
      /final_layernorm|output_layer|missing/,
    ],
    ['the first and the last swapped', () => swap(rankDir(0, 0), rankDir(0, 2)), /final_layernorm|embedding|missing/],
  ];
  it.each(layouts.flatMap((layout) => spoiled.map((one) => [JSON.stringify(layout), ...one] as const)))(
    '%s, %s: refused',
    async (layout, _what, spoil, message) => {
      write(JSON.parse(layout));
      spoil();
      const error = await merge().catch((e: unknown) => e);
      expect(error).toBeInstanceOf(InputError);
      expect((error as Error).message).toMatch(message);
      expect(existsSync(join(root, 'out'))).toBe(false);
    },
  );

  it('whole stages of all tensor ranks swapped: refused, told by what only the ends hold', async () => {
    write({ tp: 2, pp: 3, virtual: 1 });
    for (const t of [0, 1]) swap(rankDir(t, 0), rankDir(t, 1));
    await expect(merge()).rejects.toThrow(
      /00_001.model\.pt: tensor embedding\.word_embeddings\.weight: belongs in the first stage of the pipeline, this is stage 2 of 3/,
    );
    for (const t of [0, 1]) swap(rankDir(t, 0), rankDir(t, 1));
    for (const t of [0, 1]) swap(rankDir(t, 1), rankDir(t, 2));
    await expect(merge()).rejects.toThrow(
      /00_001.model\.pt: tensor decoder\.final_layernorm\.weight: belongs in the last stage of the pipeline, this is stage 2 of 3/,
    );
  });

  it.each([
    ['embedding.word_embeddings.weight', /missing in the first stage/],
    ['decoder.final_layernorm.weight', /missing in the last stage/],
    ['output_layer.weight', /output_layer\.weight: missing in the last stage/],
  ])('without %s: refused', async (leave, message) => {
    write({ tp: 1, pp: 2, virtual: 1, leave });
    await expect(merge()).rejects.toThrow(message);
  });

  it('without a head: merged where the config ties it to the embedding, not as a value model', async () => {
    write({ tp: 1, pp: 2, virtual: 1, leave: 'output_layer.weight' });
    await merge({ tieWordEmbedding: true });
    await expect(merge({ tieWordEmbedding: true, isValueModel: true })).rejects.toThrow(
      /output_layer\.weight: missing/,
    );
    await expect(merge({ tieWordEmbedding: false })).rejects.toThrow(/output_layer\.weight: missing/);
  });
});
