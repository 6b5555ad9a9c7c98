import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@frame-thinker/config';
import { InputError, RunError } from '@frame-thinker/core';
import { describe, expect, it, vi } from 'vitest';
import { type Command, defineCommand } from './command.ts';
import { run } from './run.ts';

const root = join(import.meta.dirname, '../../..');

interface Seen {
  flags: Record<string, unknown>;
  overrides: string[];
  words: string[];
}
function harness(body: () => Promise<number> = async () => 0) {
  const seen: Seen[] = [];
  const command = defineCommand({
    name: 'bake',
    describe: 'Bakes.',
    words: [['bread', 'cake']],
    flags: {
      'target-dir': { type: 'string', demandOption: true },
      loaves: { type: 'number', default: 1 },
      dry: { type: 'boolean', default: false },
    },
    overrides: 'keys',
    examples: [],
    async run({ flags, overrides, words }) {
      seen.push({ flags, overrides, words });
      return body();
    },
  });
  const plain = defineCommand({ name: 'look', describe: 'Looks.', flags: {}, examples: [], run: async () => 0 });
  const commands: Command[] = [command, plain];
  const errors: string[] = [];
  const output: string[] = [];
  return {
    seen,
    errors,
    output,
    run: (...args: string[]) => run(args, { commands, out: (t) => output.push(t), err: (t) => errors.push(t) }),
  };
}

describe('run', () => {
  it('hands flags of both spellings, words and key=value items to the command', async () => {
    const { run, seen } = harness();
    expect(await run('bake', 'cake', '--target_dir', 'a_b', 'x.y=[1,2]', '--loaves=3', '+z=-1', '--dry')).toBe(0);
    expect(seen[0]).toMatchObject({ words: ['cake'], overrides: ['x.y=[1,2]', '+z=-1'] });
    expect(seen[0]?.flags).toMatchObject({ 'target-dir': 'a_b', loaves: 3, dry: true });
  });

  it.each([
    [['bkae'], 'unknown command "bkae" - did you mean "bake"? (commands: bake, look)'],
    [['bake', 'cake', '--target-dri', 'x'], 'bake: unknown option --target-dri - did you mean "--target-dir"?'],
    [['bake', 'cake', '--a.b=1'], 'bake: unknown option --a.b - did you mean a.b=1 (no dashes)?'],
    [['bake', 'cake'], 'bake: Missing required argument: target-dir'],
    [['bake', 'cak', '--target-dir=x'], 'bake: expected bread or cake, got "cak" - did you mean "cake"?'],
    [['bake', '--target-dir=x'], 'bake: expected bread or cake, got nothing'],
    [['bake', 'cake', '--target-dir=x', '--loaves', 'many'], 'bake: --loaves: expected a number'],
    [['bake', 'cake', '--target-dir'], 'bake: --target-dir: expected a value behind it'],
    [['bake', 'cake', '--target-dir=x', 'z'], 'bake: "z" is not understood: expected key=value (see pnpm bake --help)'],
    [['look', 'a=1'], 'look: "a=1" is not understood: it takes options only (see pnpm look --help)'],
  ])('%j: one line and exit 2', async (args, message) => {
    const { run, errors, seen } = harness();
    expect(await run(...args)).toBe(2);
    expect(errors).toEqual([message]);
    expect(seen).toEqual([]);
  });

  it('maps what a body throws or returns to exit codes', async () => {
    const args = ['bake', 'cake', '--target-dir=x'];
    const thrower = (error: Error) =>
      harness(async () => {
        throw error;
      });
    const input = thrower(new InputError('a.json: not there'));
    expect(await input.run(...args)).toBe(2);
    expect(input.errors).toEqual(['a.json: not there']);
    const failed = thrower(new RunError('the oven died'));
    expect(await failed.run(...args)).toBe(1);
    expect(failed.errors).toEqual(['the oven died']);
    const bug = thrower(new TypeError('undefined is not a function'));
    expect(await bug.run(...args)).toBe(1);
    expect(bug.errors.join('\n')).toMatch(/TypeError[\s\S]*run\.test[\s\S]*This is a bug/);
    const verbose = thrower(new InputError('a.json: not there'));
    await verbose.run(...args, '--verbose');
    expect(verbose.errors.join()).toMatch(/run\.test/);
    expect(await harness(async () => 130).run(...args)).toBe(130);
  });

  it('helps with all commands and with one, without running it', async () => {
    const { run, output, seen } = harness();
    expect(await run()).toBe(0);
    expect(output.join()).toMatch(/pnpm bake[\s\S]*pnpm look/);
    expect(await run('bake', '--help')).toBe(0);
    expect(output.at(-1)).toMatch(/pnpm bake bread\|cake \[options\] \[key=value …\][\s\S]*--target-dir/);
    expect(seen).toEqual([]);
  });
});

describe('train --dry-run', () => {
  it("prints the original script's arguments resolved, as a configuration file, with the plan as comments", async () => {
    const args = readFileSync(join(root, 'tests/fixtures/agent/train_script.args'), 'utf8').trim().split('\n');
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    expect(await run(['train', '--dry-run', ...args])).toBe(0);
    const text = String(log.mock.calls[0]?.[0]);
    log.mockRestore();
    const folder = mkdtempSync(join(tmpdir(), 'cli-'));
    const file = join(folder, 'resolved.yaml');
    writeFileSync(file, text);
    expect(loadConfig({ file }).config).toEqual(loadConfig({ overrides: args }).config);
    rmSync(folder, { recursive: true });
    expect(text).toMatch(/^# accepted without effect:$/m);
    expect(text).toMatch(/^# {3}actor_rollout_ref\.rollout\.gpu_memory_utilization /m);
    expect(text).toMatch(/^# trajectories in a training step\s+256/m);
  });
});
