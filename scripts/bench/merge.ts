/**
 * @file `pnpm bench merge [--params 400e6] [--world 4] [--dtype fp32] [--dir DIR] [--peer SCRIPT] [--ours-only]`: merging a
 * generated checkpoint beside a Python script that does what verl's merger does (or SCRIPT, which is called with checkpoint
 * and target and prints `seconds` and `peak_rss_mb`), and beside `cat` and sync of the same bytes. Needs torch and
 * safetensors in .venv. DIR gets the checkpoint (kept where --dir is given) and what is written of it. Each merge and copy
 * writes anew: what the one before wrote is removed first.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError, RunError } from '@frame-thinker/core';
import { compareHfFolders } from '@frame-thinker/merge';
import { type BenchOptions, type BenchResult, compare, pairedRounds } from '../bench-result.ts';

export const options = {
  params: { type: 'string', default: '400e6' },
  world: { type: 'string', default: '4' },
  dtype: { type: 'string', default: 'fp32' },
  dir: { type: 'string' },
  peer: { type: 'string', default: join(import.meta.dirname, 'merge/peer_merge.py') },
  'ours-only': { type: 'boolean', default: false },
} as const;

interface Merged {
  seconds: number;
  peak_rss_mb: number;
}

const root = join(import.meta.dirname, '../..');
const python = join(root, '.venv/bin/python');
const script = (name: string) => join(import.meta.dirname, 'merge', name);

function run(program: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new RunError(`${program} ${args.join(' ')}: failed: ${stderr.trim().split('\n').at(-1)}`);
  return stdout;
}

/** Runs with a target that is not there yet, so that nobody pays for what the merge before wrote. */
function anew<T>(target: string, merge: () => T): T {
  rmSync(target, { recursive: true, force: true });
  return merge();
}

/** Seconds of copying all shards into one file and syncing it. */
function copyBytes(checkpoint: string, target: string): number {
  const shards = readdirSync(checkpoint).filter((name) => name.endsWith('.pt'));
  const begin = performance.now();
  run('sh', [
    '-c',
    'out=$1; shift; cat "$@" > "$out" && sync "$out"',
    'sh',
    target,
    ...shards.map((s) => join(checkpoint, s)),
  ]);
  return (performance.now() - begin) / 1000;
}

/** Both wrote the same tensors. */
function proveEqual(ours: string, peer: string): number {
  const { equal, differences } = compareHfFolders(ours, peer);
  if (differences.length > 0)
    throw new RunError(`bench merge: the two merges differ: ${differences.slice(0, 3).join('; ')}`);
  return equal;
}

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  if (!existsSync(python)) throw new InputError(`${python}: missing; CONTRIBUTING.md says how to make .venv`);
  const kept = flags.dir as string | undefined;
  const dir = kept ?? mkdtempSync(join(tmpdir(), 'bench-merge-'));
  const checkpoint = join(dir, 'checkpoint');
  const [oursOut, peerOut, copy] = ['ours', 'peer', 'copy'].map((name) => join(dir, name)) as [string, string, string];
  try {
    if (!existsSync(join(checkpoint, 'fsdp_config.json'))) {
      mkdirSync(checkpoint, { recursive: true });
      const { params, world, dtype } = flags;
      run(python, [
        script('make_checkpoint.py'),
        `--params=${params}`,
        `--world=${world}`,
        `--dtype=${dtype}`,
        `--out=${checkpoint}`,
      ]);
    }
    const ours = async (): Promise<Merged> =>
      anew(oursOut, () =>
        JSON.parse(run(join(root, 'node_modules/.bin/tsx'), [script('ours.ts'), checkpoint, oursOut])),
      );
    // Python prints a dict with its own quotes.
    const theirs = async (): Promise<Merged> =>
      anew(peerOut, () => JSON.parse(run(python, [flags.peer as string, checkpoint, peerOut]).replaceAll("'", '"')));
    const show = (who: string, { seconds, peak_rss_mb }: Merged) =>
      log(`${who}: ${seconds.toFixed(2)} s, peak ${peak_rss_mb.toFixed(0)} MB`);
    // The first merges prove that both write the same, and warm the page cache.
    show('ours', await ours());
    const common = { bench: 'merge', higher_is_better: false };
    const copied = async () => anew(copy, () => copyBytes(checkpoint, copy));
    if (flags['ours-only']) {
      const beside = await pairedRounds({ rounds, ours, peer: copied, onRound: (_, mine) => show('ours', mine) });
      const seconds = beside.ours.map((merged) => merged.seconds);
      return [
        compare({ ...common, case: 'seconds-by-copy', goal: 2, load: beside.load, ours: seconds, peer: beside.peer }),
      ];
    }
    await theirs();
    log(`equal tensors: ${proveEqual(oursOut, peerOut)}`);
    const paired = await pairedRounds({
      rounds,
      ours: async () => {
        const merged = await ours();
        return { ...merged, copy: await copied() };
      },
      peer: theirs,
      onRound: (_, mine, peer) => {
        show('ours', mine);
        show('peer', peer);
        log(`copy: ${mine.copy.toFixed(2)} s; load ${loadavg()[0]}`);
      },
    });
    const { load } = paired;
    const pick = (merges: readonly Merged[], key: keyof Merged) => merges.map((merged) => merged[key]);
    const both = (key: keyof Merged) => ({ ours: pick(paired.ours, key), peer: pick(paired.peer, key) });
    const seconds = pick(paired.ours, 'seconds');
    return [
      compare({ ...common, case: 'seconds', goal: 1 / 3, load, ...both('seconds') }),
      compare({ ...common, case: 'peak-mb', goal: 1 / 10, load, ...both('peak_rss_mb') }),
      compare({
        ...common,
        case: 'seconds-by-copy',
        goal: 2,
        load,
        ours: seconds,
        peer: paired.ours.map((merged) => merged.copy),
      }),
    ];
  } finally {
    for (const path of [oursOut, peerOut, copy, ...(kept === undefined ? [dir] : [])])
      rmSync(path, { recursive: true, force: true });
  }
}
