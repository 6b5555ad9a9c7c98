/** @file For tests: a checkpoint of two small files, to be spoiled, and the one line with which its merge is refused. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { type PickleValue, pickleDict } from '@frame-thinker/pickle';
import { mergeCheckpoint } from '../merge.ts';
import { dtensor, strides, TorchFile } from './torch-file.ts';

export const FLOATS = (count: number, seed = 0): Uint8Array =>
  new Uint8Array(Float32Array.from({ length: count }, (_, i) => i + seed).buffer);

export interface Local {
  data?: Uint8Array;
  shape?: number[];
  stride?: number[];
  offset?: number;
}

/** Folders of each test's own, made by `make` and removed by `remove`: `actor` with the shards, `base` with a config. */
export function twoRankCheckpoint() {
  const at = { root: '', actor: '' };
  const make = (): void => {
    at.root = mkdtempSync(join(tmpdir(), 'bad-checkpoints-'));
    at.actor = join(at.root, 'actor');
    mkdirSync(at.actor);
    mkdirSync(join(at.root, 'base'));
    writeFileSync(join(at.root, 'base/config.json'), '{}');
  };
  const remove = (): void => rmSync(at.root, { recursive: true });

  const shard = (rank: number, worldSize = 2): string =>
    join(at.actor, `model_world_size_${worldSize}_rank_${rank}.pt`);

  /** The file of a rank: w [4,3] cut on dim 0 in two. */
  function writeRank(rank: number, local: Local = {}, change: (value: PickleValue) => PickleValue = (v) => v): void {
    const file = new TorchFile();
    const { data = FLOATS(6, 10 * rank), shape = [2, 3], stride = strides(shape), offset = 0 } = local;
    const tensor = change(dtensor(file.tensor('F32', shape, data, stride, offset), [4, 3], 0, 2, rank));
    file.save(shard(rank), pickleDict([['w', tensor]], true));
  }
  function writeGood(): void {
    writeRank(0);
    writeRank(1);
  }

  const merge = () =>
    mergeCheckpoint({
      backend: 'fsdp',
      localDir: at.actor,
      hfModelPath: join(at.root, 'base'),
      targetDir: join(at.root, 'out'),
      dtype: 'keep',
    });

  /** The one line with which a merge is refused. */
  async function refusal(): Promise<string> {
    const error = await merge().then(
      () => new Error('it was merged'),
      (e: unknown) => e,
    );
    assert(error instanceof InputError, String(error));
    const { message } = error;
    assert(!message.includes('\n'), message);
    assert.deepEqual(readdirSync(at.root).sort(), ['actor', 'base']);
    return message;
  }
  return { make, remove, at, shard, writeRank, writeGood, merge, refusal };
}
