/** @file This project's own shards (safetensors) as a source of a merge. */
import { existsSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import {
  MANIFEST,
  openRecorded,
  openSafetensors,
  openShards,
  type RecordedSafetensors,
  readManifest,
  type SafetensorsFile,
  verifyManifest,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import type { MergeSource } from './source.ts';

/** How the model's shards are opened: where the checkpoint has a manifest, they must be what it recorded. */
function opener(localDir: string): { open(path: string): SafetensorsFile; verify(): void } {
  const checkpoint = dirname(resolve(localDir));
  if (!existsSync(join(checkpoint, MANIFEST))) return { open: openSafetensors, verify: () => {} };
  const actor = relative(checkpoint, resolve(localDir));
  verifyManifest(checkpoint, (path) => path === `${actor}/fsdp_config.json`);
  const { files } = readManifest(checkpoint);
  const opened: RecordedSafetensors[] = [];
  return {
    open: (path) => {
      const record = files[`${actor}/${basename(path)}`];
      if (!record) throw new InputError(`${join(checkpoint, MANIFEST)}: does not name ${path}; use another checkpoint`);
      const file = openRecorded(path, record);
      opened.push(file);
      return file;
    },
    verify: () => {
      for (const file of opened) file.verify();
    },
  };
}

/** @throws InputError naming file and tensor: a missing rank, other shapes, a changed file. */
export function openOwnShards(localDir: string): MergeSource {
  const { open, verify } = opener(localDir);
  const { worldSize, names, ranged, close } = openShards(localDir, 'model', open);
  return { worldSize, tensors: new Map(names.map((name) => [name, ranged(name)])), notes: [], verify, close };
}
