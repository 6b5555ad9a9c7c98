/** @file `pnpm merge` of torch's shards as a user starts it: each option, a kill, a disk that lies, and its memory. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bytesOf, type Dtype, openHfFolder } from '@frame-thinker/checkpoint';
import { pickleDict } from '@frame-thinker/pickle';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dtensor, TorchFile } from '../../packages/merge/src/testing/torch-file.ts';
import { root, runCommand, start } from './processes.ts';

const cwd = mkdtempSync(join(tmpdir(), 'ft-merge-e2e-'));
afterAll(() => rmSync(cwd, { recursive: true, force: true }));
const at = (...parts: string[]): string => join(cwd, ...parts);

/** A checkpoint of two ranks below `name`, with a base beside it; tensors [rows, columns], cut on dim 0. */
function writeCheckpoint(
  name: string,
  tensors: Record<string, [rows: number, values: Float32Array]>,
  config: object,
): void {
  for (const part of ['actor', 'base']) mkdirSync(at(name, part), { recursive: true });
  writeFileSync(at(name, 'base/config.json'), JSON.stringify(config));
  writeFileSync(at(name, 'base/tokenizer.json'), '{}');
  writeFileSync(at(name, 'actor/fsdp_config.json'), JSON.stringify({ FSDP_version: 2, world_size: 2 }));
  for (const rank of [0, 1]) {
    const file = new TorchFile();
    const entries = Object.entries(tensors).map(([tensor, [rows, values]]) => {
      const columns = values.length / rows;
      const chunk = Math.ceil(rows / 2) * columns;
      const local = values.slice(rank * chunk, (rank + 1) * chunk);
      const part = file.tensor('F32', [local.length / columns, columns], bytesOf(local));
      return [tensor, dtensor(part, [rows, columns], 0, 2, rank)] as const;
    });
    file.save(at(name, `actor/model_world_size_2_rank_${rank}.pt`), pickleDict(entries, true));
  }
}

const words = (name: string, target: string, ...more: string[]) => [
  ...['merge', '--backend', 'fsdp', '--local-dir', `${name}/actor`, '--hf-model-path', `${name}/base`],
  ...['--target-dir', target, ...more],
];
async function merged(name: string, target: string, ...more: string[]): Promise<string[]> {
  const { code, lines } = await runCommand(words(name, target, ...more), { cwd });
  expect({ code, lines: code === 0 ? [] : lines }).toEqual({ code: 0, lines: [] });
  return lines;
}
const filesOf = (target: string) => readdirSync(at(target)).sort();
/** A tensor's dtype and its elements as bits. */
function bitsOf(target: string, name: string): { dtype: Dtype; bits: number[] } {
  const folder = openHfFolder(at(target));
  try {
    const { dtype, data } = folder.readRaw(name);
    const bytes = bytesOf(data).slice();
    return { dtype, bits: [...(dtype === 'F32' ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer))] };
  } finally {
    folder.close();
  }
}

/** float32, its bfloat16 and its float16, by IEEE 754's rounding to nearest, ties to even. */
const ROUNDED: [f32: number, bf16: number, f16: number][] = [
  [0x3f800000, 0x3f80, 0x3c00],
  [0x80000000, 0x8000, 0x8000],
  [0x7f800000, 0x7f80, 0x7c00],
  [0xff800000, 0xff80, 0xfc00],
  [0x7f7fffff, 0x7f80, 0x7c00],
  [0x477fe000, 0x4780, 0x7bff],
  [0x477fefff, 0x4780, 0x7bff],
  [0x477ff000, 0x4780, 0x7c00],
  [0x3f808000, 0x3f81 - 1, 0x3c04],
  [0x3f818000, 0x3f82, 0x3c0c],
  [0x3f808001, 0x3f81, 0x3c04],
  [0x3f801000, 0x3f80, 0x3c00],
  [0x3f803000, 0x3f80, 0x3c02],
  [0x00000001, 0x0000, 0x0000],
  [0x00008001, 0x0001, 0x0000],
  [0x33800000, 0x3380, 0x0001],
  [0x33000000, 0x3300, 0x0000],
  [0x33000001, 0x3300, 0x0001],
  [0x33c00000, 0x33c0, 0x0002],
];
const NAN = 0x7fc12345;

const values = (count: number) => new Float32Array(count).map((_, i) => Math.sin(i));

beforeAll(() => {
  const special = new Float32Array(Uint32Array.from([...ROUNDED.map(([f32]) => f32), NAN]).buffer);
  writeCheckpoint('special', { special: [5, special] }, { dtype: 'float16' });
  const embedding = values(60 * 8);
  const tensors: Parameters<typeof writeCheckpoint>[1] = {
    'model.embed_tokens.weight': [60, embedding],
    'model.norm.weight': [8, values(8)],
    'lm_head.weight': [60, embedding],
  };
  writeCheckpoint('model', tensors, { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' });
});

describe('--dtype', () => {
  const expected = {
    fp32: ['F32', ROUNDED.map(([f32]) => f32)],
    keep: ['F32', ROUNDED.map(([f32]) => f32)],
    bf16: ['BF16', ROUNDED.map(([, bf16]) => bf16)],
    fp16: ['F16', ROUNDED.map(([, , f16]) => f16)],
    auto: ['F16', ROUNDED.map(([, , f16]) => f16)],
  } as const;
  it.each(Object.entries(expected))(
    '%s rounds to nearest even, infinities, NaN and subnormals too',
    async (dtype, [stored, bits]) => {
      const lines = await merged('special', `out-${dtype}`, '--dtype', dtype);
      const found = bitsOf(`out-${dtype}`, 'special');
      expect(found.dtype).toBe(stored);
      expect(found.bits.slice(0, -1)).toEqual(bits);
      const nan = found.bits.at(-1) as number;
      if (stored === 'F32') expect(nan).toBe(NAN);
      else expect(stored === 'F16' ? (nan & 0x7fff) > 0x7c00 : (nan & 0x7fff) > 0x7f80).toBe(true);
      const overflowed = {
        F32: null,
        BF16: '1 values became infinite in bf16',
        F16: '2 values became infinite in fp16',
      }[stored];
      expect(lines.filter((line) => line.startsWith('warning')).join()).toContain(overflowed ?? '');
      expect(lines.some((line) => line.startsWith('warning'))).toBe(overflowed !== null);
      expect(JSON.parse(readFileSync(at(`out-${dtype}`, 'config.json'), 'utf8')).dtype).toBe(
        { F32: 'float32', BF16: 'bfloat16', F16: 'float16' }[stored],
      );
    },
  );
});

describe('options', () => {
  it("take verl's spellings with underscores; a tied head is dropped, and a dry run only says so", async () => {
    const names = ['--local_dir', 'model/actor', '--hf_model_path', 'model/base', '--target_dir', 'tied'];
    const spelled = ['merge', '--backend', 'fsdp', ...names, '--tie-word-embedding', '--max_shard_size', '1kB'];
    const dry = await runCommand([...spelled, '--dry_run'], { cwd });
    expect(dry.code).toBe(0);
    expect(dry.lines.join('\n')).toMatch(
      /tied: would write 2 tensors, 976 bytes \(bf16\) of 2 shards in 1 files\n {2}model\.safetensors$/,
    );
    expect(existsSync(at('tied'))).toBe(false);
    expect((await runCommand(spelled, { cwd })).code).toBe(0);
    const folder = openHfFolder(at('tied'));
    expect([...folder.names].sort()).toEqual(['model.embed_tokens.weight', 'model.norm.weight']);
    folder.close();
    expect(JSON.parse(readFileSync(at('tied', 'config.json'), 'utf8')).tie_word_embeddings).toBe(true);
  });

  it('--test-hf-dir of no model, or with --dry-run, is refused before anything is written', async () => {
    for (const [more, message] of [
      [['--test-hf-dir', 'nowhere'], /nowhere: no model here/],
      [['--test-hf-dir', 'model/base', '--dry-run'], /--dry-run writes nothing; give one of them/],
      [['--local-dir', 'nowhere/actor'], /nowhere\/actor: no such folder \(--local-dir\)/],
    ] as const) {
      const { code, lines } = await runCommand([...words('model', 'refused'), ...more], { cwd });
      expect(code).toBe(2);
      expect(lines.at(-1)).toMatch(message);
      expect(existsSync(at('refused'))).toBe(false);
    }
  });

  it('--max-shard-size cuts into files with an index', async () => {
    await merged('model', 'cut', '--max-shard-size', '970', '--verify');
    expect(filesOf('cut')).toEqual([
      'config.json',
      ...[1, 2, 3].map((n) => `model-0000${n}-of-00003.safetensors`),
      'model.safetensors.index.json',
      'tokenizer.json',
    ]);
    expect(JSON.parse(readFileSync(at('cut/model.safetensors.index.json'), 'utf8'))).toEqual({
      metadata: { total_size: 2 * (2 * 480 + 8) },
      weight_map: {
        'lm_head.weight': 'model-00003-of-00003.safetensors',
        'model.embed_tokens.weight': 'model-00001-of-00003.safetensors',
        'model.norm.weight': 'model-00002-of-00003.safetensors',
      },
    });
  });

  it('--test-hf-dir says whether another folder holds the same tensors', async () => {
    await merged('model', 'other', '--max-shard-size', '970');
    const lines = await merged('model', 'same', '--test-hf-dir', 'other');
    expect(lines.at(-1)).toBe('3 tensors are those of other, 0 are not');
    const path = at('other/model-00002-of-00003.safetensors');
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(path, bytes);
    const { code, lines: found } = await runCommand(words('model', 'same', '--test-hf-dir', 'other'), { cwd });
    expect(code).toBe(1);
    expect(found.slice(-2)).toEqual(['model.norm.weight: other values', '2 tensors are those of other, 1 are not']);
  });

  it('a bad value is one line', async () => {
    const { code, lines } = await runCommand(words('model', 'bad', '--max-shard-size', 'much'), { cwd });
    expect({ code, lines }).toEqual({
      code: 2,
      lines: [expect.stringContaining('--max-shard-size much: expected a size such as 5GB')],
    });
  });
});

describe('progress', () => {
  it('is lines with bytes a second in a log', async () => {
    expect((await merged('model', 'log')).join('\n')).toMatch(/^merge {2}0\.1\/0\.1 .*MB.*done$/m);
  });
  it('is a bar with bytes a second on a terminal', ({ skip }) => {
    if (spawnSync('script', ['--version']).status !== 0) skip('needs script of util-linux');
    const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
    const command = [
      process.execPath,
      '--import',
      tsx,
      join(root, 'packages/cli/src/main.ts'),
      ...words('model', 'bar'),
    ];
    const shown = execFileSync('script', ['-qec', command.join(' '), '/dev/null'], { cwd, encoding: 'utf8' });

    expect(shown).toMatch(/\r.*merge {2}█+ {2}0\.1\/0\.1 .*MB.*done/);
  });
});

/** Node code that runs before the command: `body` may change fs. */
function before(body: string): { env: NodeJS.ProcessEnv; cwd: string } {
  const path = at(`before-${body.length}.mjs`);
  writeFileSync(
    path,
    `import fs from 'node:fs';\nimport { syncBuiltinESMExports } from 'node:module';\nconst write = fs.writeSync;\n${body}\nsyncBuiltinESMExports();\n`,
  );
  return { cwd, env: { NODE_OPTIONS: `--import ${pathToFileURL(path).href}` } };
}

describe('a disk that lies', () => {
  const flip = before(
    'fs.writeSync = (handle, bytes, at, length, position) => {\n' +
      '  const wrong = Uint8Array.from(bytes);\n  if (length === 960) wrong[at + 500] ^= 8;\n' +
      '  return write(handle, wrong, at, length, position);\n};',
  );
  it('is found by --verify, and only by it', async () => {
    const { code, lines } = await runCommand(words('model', 'flipped', '--tie-word-embedding', '--verify'), flip);
    expect(code).toBe(2);
    expect(lines.at(-1)).toMatch(
      /flipped: tensor model\.embed_tokens\.weight: reads back otherwise than it was written/,
    );
    expect(readdirSync(cwd).filter((name) => name.includes('flipped'))).toEqual([]);
    expect((await runCommand(words('model', 'flipped', '--tie-word-embedding'), flip)).code).toBe(0);
  });
});

describe('a kill', () => {
  it('in the middle of a merge leaves no half folder, and the next merge works and removes what was left', async () => {
    const slow = before(
      'fs.writeSync = (...args) => {\n  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);\n  return write(...args);\n};',
    );
    const left = () => readdirSync(cwd).filter((name) => name.startsWith('.killed.'));
    const kill = async () => {
      const { child, ended } = start(words('model', 'killed'), slow);
      while (!left().some((name) => readdirSync(at(name)).some((file) => file.includes('safetensors'))))
        await new Promise((resolve) => setTimeout(resolve, 20));
      child.kill('SIGKILL');
      expect((await ended).signal).toBe('SIGKILL');
      expect(left()).toHaveLength(1);
    };
    await kill();
    expect(existsSync(at('killed'))).toBe(false);
    await merged('model', 'killed');
    expect(left()).toEqual([]);
    const whole = filesOf('killed');
    const { ino, size } = statSync(at('killed/model.safetensors'));
    await kill();
    expect(filesOf('killed')).toEqual(whole);
    expect(statSync(at('killed/model.safetensors'))).toMatchObject({ ino, size });
    await merged('model', 'killed', '--dtype', 'fp32');
    expect(left()).toEqual([]);
    expect(bitsOf('killed', 'model.norm.weight').dtype).toBe('F32');
  });
});

describe('a checkpoint of 50 M parameters, 40 M of them in one tensor', () => {
  beforeAll(() => {
    const large: Parameters<typeof writeCheckpoint>[1] = { embedding: [40_000, values(40_000_000)] };
    for (let i = 0; i < 10; i++) large[`layer${i}`] = [1000, values(1_000_000)];
    writeCheckpoint('large', large, {});
  });
  it('is not written where the disk fails beside the writing', async () => {
    const failing = before(
      'const { open } = fs.promises;\nfs.promises.open = async (...args) => {\n  const handle = await open(...args);\n' +
        "  handle.datasync = async () => { throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' }); };\n  return handle;\n};",
    );
    const { code, lines } = await runCommand(words('large', 'failed'), failing);
    expect(code).toBe(2);
    expect(lines.at(-1)).toMatch(/^failed\/model\.safetensors: cannot be written \(EIO/);
    expect(readdirSync(cwd).filter((name) => name.includes('failed'))).toEqual([]);
  });
  /** Peak of a process that only merges, MB. */
  const peakOf = (name: string): number => {
    mkdirSync(at(name, 'actor/huggingface'));
    writeFileSync(at(name, 'actor/huggingface/config.json'), '{}');
    // Through a process between: a child's peak begins with what its parent had.
    const program = join(root, 'node_modules/.bin/tsx');
    const args = [join(root, 'scripts/bench/merge/ours.ts'), at(name, 'actor'), at(name, 'out')];
    return (JSON.parse(execFileSync(program, args, { cwd: root, encoding: 'utf8' })) as { peak_rss_mb: number })
      .peak_rss_mb;
  };
  it('takes no more memory than a small one', () => {
    writeCheckpoint('small', { a: [400, values(40_000)], b: [100, values(10_000)] }, {});
    const [small, peak] = [peakOf('small'), peakOf('large')];
    console.log(`merge: peak RSS ${peak.toFixed(0)} MB for 50 M parameters, ${small.toFixed(0)} MB for 50 thousand`);
    expect(peak).toBeLessThan(220);
    // The file has 200 MB, its largest tensor 160 MB.
    expect(peak - small).toBeLessThan(40);
  });
});
