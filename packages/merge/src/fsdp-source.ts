/** @file verl's `model_world_size_W_rank_R.pt` as a source of a merge: FSDP1, FSDP2, HSDP, any torch version. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  elementCount,
  joinTensors,
  openTorchArchive,
  type RangedTensor,
  readJsonFile,
  shardRange,
  stateDictOf,
  type TorchArchive,
  type TorchTensor,
  torchTensorOf,
} from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import type { MergeSource } from './source.ts';

const fileName = (worldSize: number, rank: number) => `model_world_size_${worldSize}_rank_${rank}.pt`;

/** Whether a folder holds verl's torch shards. */
export function hasTorchShards(dir: string): boolean {
  return existsSync(dir) && readdirSync(dir).some((name) => /^model_world_size_\d+_rank_\d+\.pt$/.test(name));
}

interface RankFile {
  rank: number;
  archive: TorchArchive;
  tensors: Map<string, TorchTensor>;
  skipped: string[];
}

/** World size by the file names; fsdp_config.json must agree where it is there. */
function findWorldSize(dir: string, notes: string[]): number {
  const names = readdirSync(dir);
  const worlds = new Set(
    names.flatMap((name) => /^model_world_size_(\d+)_rank_\d+\.pt$/.exec(name)?.[1] ?? []).map(Number),
  );
  if (worlds.size !== 1)
    throw new InputError(`${dir}: holds shards of mixed world sizes (${[...worlds].sort().join(', ')}); keep one set`);
  const [worldSize = 0] = worlds;
  const configPath = join(dir, 'fsdp_config.json');
  if (existsSync(configPath)) {
    const configured = (readJsonFile(configPath) as { world_size?: unknown } | null)?.world_size;
    if (configured !== worldSize)
      throw new InputError(
        `${configPath}: world_size is ${JSON.stringify(configured)}, the shards are of ${worldSize}`,
      );
  } else notes.push(`no fsdp_config.json; world size ${worldSize} is taken from the file names`);
  if (worldSize < 1 || worldSize > 1 << 16) throw new InputError(`${dir}: world size ${worldSize}`);
  for (let rank = 0; rank < worldSize; rank++)
    if (!names.includes(fileName(worldSize, rank)))
      throw new InputError(`${join(dir, fileName(worldSize, rank))}: missing: rank ${rank} of ${worldSize}`);
  return worldSize;
}

/** A file's tensors, each checked to be what its rank holds. */
function openRank(dir: string, worldSize: number, rank: number): RankFile {
  const path = join(dir, fileName(worldSize, rank));
  const archive = openTorchArchive(path);
  try {
    const tensors = new Map<string, TorchTensor>();
    const skipped: string[] = [];
    for (const [name, value] of stateDictOf(archive.root, path)) {
      const fail = (what: string) => new InputError(`${path}: tensor ${name}: ${what}`);
      const tensor = torchTensorOf(value, archive, fail);
      if (!tensor) skipped.push(name);
      else {
        checkRank(tensor, worldSize, rank, fail);
        tensors.set(name, tensor);
      }
    }
    archive.forget();
    return { rank, archive, tensors, skipped };
  } catch (error) {
    archive.close();
    throw error;
  }
}

/** The place in the mesh that `rank` has. */
function placeOf(mesh: { shape: readonly number[]; ranks: readonly number[] | null }, rank: number): number[] | null {
  const at = mesh.ranks ? mesh.ranks.indexOf(rank) : rank;
  if (at < 0 || at >= elementCount(mesh.shape)) return null;
  const place: number[] = [];
  for (let dim = mesh.shape.length - 1, rest = at; dim >= 0; dim--) {
    place.unshift(rest % (mesh.shape[dim] as number));
    rest = Math.floor(rest / (mesh.shape[dim] as number));
  }
  return place;
}

function checkRank({ cut }: TorchTensor, worldSize: number, rank: number, fail: (what: string) => InputError): void {
  if (cut.kind !== 'mesh') return;
  const { mesh } = cut;
  if (elementCount(mesh.shape) !== worldSize)
    throw fail(`written by a mesh of [${mesh.shape}] ranks, the file's name says ${worldSize}`);
  const place = placeOf(mesh, rank);
  if (worldSize > 1 && mesh.rank === null && !mesh.coordinate)
    throw fail(`nothing in it says which rank of the mesh it is of, so that swapped files could not be told`);
  if (mesh.rank !== null && mesh.rank !== rank)
    throw fail(`the file's name says rank ${rank}, its content rank ${mesh.rank}`);
  if (!place || (mesh.coordinate && String(mesh.coordinate) !== String(place)))
    throw fail(`the file's name says rank ${rank}, its content is from place [${mesh.coordinate}] of the mesh`);
}

/** Joins a tensor that is cut over a mesh. Of copies (HSDP) the first is taken; `differing` gets the names of those that are none. */
function joinMesh(
  name: string,
  pieces: { file: RankFile; tensor: TorchTensor }[],
  differing: Set<string>,
): RangedTensor {
  const [first] = pieces as [{ file: RankFile; tensor: TorchTensor }];
  if (first.tensor.cut.kind !== 'mesh') throw new InputError(`${first.file.archive.path}: tensor ${name}: not cut`);
  const { shape, mesh, placements } = first.tensor.cut;
  const cuts = placements.flatMap((placement, dim) =>
    placement.kind === 'shard' ? [{ meshDim: dim, dim: placement.dim }] : [],
  );
  const [cut] = cuts;
  if (cuts.length > 1)
    throw new InputError(
      `${first.file.archive.path}: tensor ${name}: cut on ${cuts.length} dims of the mesh; one is read`,
    );
  const ordered: RangedTensor[] = [];
  for (const { file, tensor } of pieces) {
    const fail = (what: string) => new InputError(`${file.archive.path}: tensor ${name}: ${what}`);
    if (tensor.cut.kind !== 'mesh' || String(tensor.cut.shape) !== String(shape))
      throw fail(
        `[${tensor.cut.kind === 'mesh' ? tensor.cut.shape : tensor.local.shape}], but [${shape}] in ${first.file.archive.path}`,
      );
    if (
      JSON.stringify(tensor.cut.placements) !== JSON.stringify(placements) ||
      String(tensor.cut.mesh.shape) !== String(mesh.shape)
    )
      throw fail(`cut otherwise than in ${first.file.archive.path}`);
    if (tensor.local.dtype !== first.tensor.local.dtype)
      throw fail(`${tensor.local.dtype}, but ${first.tensor.local.dtype} in ${first.file.archive.path}`);
    const place = placeOf(tensor.cut.mesh, file.rank) ?? [];
    let expected = [...shape];
    if (cut) {
      if (cut.dim >= shape.length) throw fail(`cut on dim ${cut.dim} of [${shape}]`);
      const { start, end } = shardRange(
        shape[cut.dim] as number,
        mesh.shape[cut.meshDim] as number,
        place[cut.meshDim] as number,
      );
      expected = shape.map((n, d) => (d === cut.dim ? end - start : n));
    }
    if (String(expected) !== String(tensor.local.shape))
      throw fail(`holds [${tensor.local.shape}]; rank ${file.rank} of [${shape}] must hold [${expected}]`);
    // Copies: the first place of every mesh dim that does not cut.
    if (place.every((at, dim) => at === 0 || dim === cut?.meshDim))
      ordered[cut ? (place[cut.meshDim] as number) : 0] = tensor.local;
    else if (ordered[cut ? (place[cut.meshDim] as number) : 0]?.fingerprint !== tensor.local.fingerprint)
      differing.add(name);
  }
  return cut ? joinTensors(ordered, cut.dim) : (ordered[0] as RangedTensor);
}

/** Joins boxes (FSDP1's ShardedTensor) that lie behind one another on one dim. */
function joinBoxes(name: string, pieces: { file: RankFile; tensor: TorchTensor }[]): RangedTensor {
  const boxes = pieces.map(({ file, tensor }) => {
    const { cut, local } = tensor;
    const fail = (what: string) => new InputError(`${file.archive.path}: tensor ${name}: ${what}`);
    if (cut.kind !== 'box') throw fail('cut otherwise than in other ranks');
    return { fail, local, shape: cut.shape, offsets: cut.offsets };
  });
  const [first] = boxes as [(typeof boxes)[number]];
  const dim = Math.max(
    0,
    first.shape.findIndex((n, d) => boxes.some(({ local }) => local.shape[d] !== n)),
  );
  boxes.sort(
    (a, b) =>
      (a.offsets[dim] as number) - (b.offsets[dim] as number) ||
      (a.local.shape[dim] as number) - (b.local.shape[dim] as number),
  );
  let at = 0;
  for (const { fail, local, shape, offsets } of boxes) {
    if (String(shape) !== String(first.shape) || local.dtype !== first.local.dtype)
      throw fail('another shape or dtype than in other ranks');
    const fits = shape.every((n, d) =>
      d === dim ? offsets[d] === at || local.shape[d] === 0 : offsets[d] === 0 && local.shape[d] === n,
    );
    if (!fits) throw fail(`gap or overlap: its part begins at [${offsets}], expected ${at} on dim ${dim}`);
    at += local.shape[dim] as number;
  }
  if (at !== first.shape[dim]) throw first.fail(`the shards hold ${at} of ${first.shape[dim]} on dim ${dim}`);
  return joinTensors(
    boxes.map(({ local }) => local),
    dim,
  );
}

/** Tensors that say nothing about a cut: of one rank, or the same in all ranks. */
function oneOfCopies(name: string, pieces: { file: RankFile; tensor: TorchTensor }[]): RangedTensor {
  const [first, ...others] = pieces as [(typeof pieces)[number], ...typeof pieces];
  for (const { file, tensor } of others)
    if (tensor.cut.kind !== 'none' || tensor.local.fingerprint !== first.tensor.local.fingerprint)
      throw new InputError(
        `${file.archive.path}: tensor ${name}: a plain tensor that differs from that in ${first.file.archive.path}, and nothing says how it is cut`,
      );
  return first.tensor.local;
}

function joinAll(ranks: RankFile[], differing: Set<string>): Map<string, RangedTensor> {
  const [first] = ranks as [RankFile];
  for (const { archive, tensors } of ranks) {
    const lacking = [...first.tensors.keys()].find((name) => !tensors.has(name));
    if (lacking !== undefined)
      throw new InputError(`${archive.path}: tensor ${lacking}: missing, though ${first.archive.path} holds it`);
    const extra = [...tensors.keys()].find((name) => !first.tensors.has(name));
    if (extra !== undefined)
      throw new InputError(`${archive.path}: tensor ${extra}: ${first.archive.path} does not hold it`);
  }
  return new Map(
    [...first.tensors].map(([name, { cut }]) => {
      const pieces = ranks.map((file) => ({ file, tensor: file.tensors.get(name) as TorchTensor }));
      const join = cut.kind === 'mesh' ? joinMesh : cut.kind === 'box' ? joinBoxes : oneOfCopies;
      return [name, join(name, pieces, differing)];
    }),
  );
}

/**
 * Opens the shards of all ranks and checks that they make whole tensors.
 * @throws InputError in one line naming file and tensor: a missing, swapped, copied or foreign rank, other shapes, dtypes
 * or names, anything that the archive or its pickle must not be.
 */
export function openFsdpTorch(dir: string): MergeSource {
  const notes: string[] = [];
  const worldSize = findWorldSize(dir, notes);
  const ranks: RankFile[] = [];
  const close = () => {
    for (const { archive } of ranks.splice(0)) archive.close();
  };
  try {
    for (let rank = 0; rank < worldSize; rank++) ranks.push(openRank(dir, worldSize, rank));
    const differing = new Set<string>();
    const tensors = joinAll(ranks, differing);
    if (differing.size > 0)
      notes.push(
        `${differing.size} tensors differ between ranks that should hold copies; the first copy is taken: ${[...differing].slice(0, 5).join(', ')}`,
      );
    if (tensors.size === 0) throw new InputError(`${dir}: the shards hold no tensor`);
    const skipped = ranks[0]?.skipped ?? [];
    if (skipped.length > 0)
      notes.push(`${skipped.length} entries that are no tensors are left out: ${skipped.slice(0, 5).join(', ')}`);
    return {
      worldSize,
      tensors,
      notes,
      verify: () => {
        for (const { archive } of ranks) archive.verify();
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
