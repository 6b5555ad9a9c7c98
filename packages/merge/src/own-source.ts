/** @file This project's own shards (safetensors) as a source of a merge. */
import { existsSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { MANIFEST, openShards, readManifest, verifyManifest } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import type { MergeSource } from './source.ts';

/** The shards' own manifest, where the checkpoint has one: only what merging reads is checked. */
function verifyModelShards(localDir: string): void {
  const checkpoint = dirname(resolve(localDir));
  if (!existsSync(join(checkpoint, MANIFEST))) return;
  const actor = relative(checkpoint, resolve(localDir));
  const isModelShard = (path: string) => path.startsWith(`${actor}/model_world_size_`);
  if (!Object.keys(readManifest(checkpoint).files).some(isModelShard))
    throw new InputError(`${join(checkpoint, MANIFEST)}: names no model shards of ${localDir}`);
  verifyManifest(checkpoint, (path) => isModelShard(path) || path === `${actor}/fsdp_config.json`);
}

/** @throws InputError naming file and tensor: a missing rank, other shapes, a changed file. */
export function openOwnShards(localDir: string): MergeSource {
  const shards = openShards(localDir, 'model');
  try {
    verifyModelShards(localDir);
    return {
      worldSize: shards.worldSize,
      tensors: new Map(shards.names.map((name) => [name, shards.ranged(name)])),
      notes: [],
      verify: () => {},
      close: shards.close,
    };
  } catch (error) {
    shards.close();
    throw error;
  }
}
