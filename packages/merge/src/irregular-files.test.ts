import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { twoRankCheckpoint } from './testing/two-rank-checkpoint.ts';

const { make, remove, at, shard, writeGood, merge, refusal } = twoRankCheckpoint();
beforeEach(make);
afterEach(remove);

describe('in the place of a file that a merge opens', () => {
  const FILES = [
    'actor/model_world_size_2_rank_1.pt',
    'actor/fsdp_config.json',
    'base/config.json',
    'base/tokenizer.json',
  ];
  beforeEach(({ skip }) => {
    skip(process.platform === 'win32', 'needs named pipes');
    writeGood();
    for (const file of FILES.slice(1)) writeFileSync(join(at.root, file), '{"world_size": 2}');
  });

  it.each(FILES)('a named pipe is refused: %s', async (file) => {
    rmSync(join(at.root, file));
    execFileSync('mkfifo', [join(at.root, file)]);
    // Whoever waits for it anyway gets an end of the file.
    const writer = spawn('sh', ['-c', 'sleep 5; exec 3> "$1"', 'sh', join(at.root, file)], { detached: true });
    expect(await refusal()).toBe(`${join(at.root, file)}: is a named pipe, not a file; refused`);
    process.kill(-(writer.pid as number));
  });
  it.each(FILES)('a device behind a link is refused: %s', async (file) => {
    rmSync(join(at.root, file));
    symlinkSync('/dev/zero', join(at.root, file));
    expect(await refusal()).toBe(`${join(at.root, file)}: is a device, not a file; refused`);
  });
  it.each(FILES)('a folder is refused, or left where it is none of the weights: %s', async (file) => {
    rmSync(join(at.root, file));
    mkdirSync(join(at.root, file));
    if (file.endsWith('tokenizer.json')) expect((await merge()).files).not.toContain('tokenizer.json');
    else expect(await refusal()).toBe(`${join(at.root, file)}: is a folder, not a file; refused`);
  });
  it('a socket is refused', async () => {
    rmSync(shard(1));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(shard(1), resolve));
    expect(await refusal()).toBe(`${shard(1)}: is a socket, not a file; refused`);
    await new Promise((resolve) => server.close(resolve));
  });
  it.each(FILES)('a link to a file is read: %s', async (file) => {
    mkdirSync(join(at.root, 'store'));
    renameSync(join(at.root, file), join(at.root, 'store/file'));
    symlinkSync(join(at.root, 'store/file'), join(at.root, file));
    expect(await merge()).toMatchObject({ tensors: 1 });
    rmSync(join(at.root, 'store'), { recursive: true });
  });
});
