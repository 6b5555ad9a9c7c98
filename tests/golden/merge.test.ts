import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesOf, type Dtype, openSafetensors } from '@frame-thinker/checkpoint';
import { InputError } from '@frame-thinker/core';
import { type MergeOptions, mergeCheckpoint } from '@frame-thinker/merge';
import { toDiskName } from '@frame-thinker/qwen-vl';
import { afterAll, expect, it } from 'vitest';

const fixtures = join(process.env.GOLDEN_DIR ?? 'tests/fixtures', 'merge');
const root = mkdtempSync(join(tmpdir(), 'golden-merge-'));
afterAll(() => rmSync(root, { recursive: true }));

interface Described {
  dtype: string;
  shape: number[];
  sha256: string;
}
type Tensors = Record<string, Described>;
interface Expected {
  merged_state_dict?: Tensors;
  output?: Record<string, Tensors>;
}

const read = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8'));
const NAMES: Partial<Record<Dtype, string>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Hashes that count as equal: NaNs of float32 become 0xffff or 0x7fc0 in verl's bfloat16, as its CPU has it. */
function hashesOf(dtype: Dtype, bytes: Uint8Array): string[] {
  if (dtype !== 'BF16') return [sha256(bytes)];
  const bits = new Uint16Array(bytes.slice().buffer);
  const withNan = (nan: number) => sha256(bytesOf(bits.map((b) => ((b & 0x7fff) > 0x7f80 ? nan : b))));
  return [sha256(bytes), withNan(0xffff), withNan(0x7fc0)];
}

/** Names of tensors that are not as expected. */
function differences(path: string, expected: Tensors): string[] {
  const file = openSafetensors(path);
  try {
    const names = new Set([...file.header.entries.keys(), ...Object.keys(expected)]);
    return [...names].filter((name) => {
      const want = expected[name];
      if (!want || !file.header.entries.has(name)) return true;
      const { dtype, shape, data } = file.read(name);
      const same = NAMES[dtype] === want.dtype && String(shape) === String(want.shape);
      return !same || !hashesOf(dtype, bytesOf(data)).includes(want.sha256);
    });
  } finally {
    file.close();
  }
}

const merge = (localDir: string, targetDir: string, options: Partial<MergeOptions> = {}) =>
  mergeCheckpoint({
    backend: 'fsdp',
    localDir,
    hfModelPath: join(localDir, 'huggingface'),
    targetDir,
    dtype: 'bf16',
    lora: 'adapter',
    ...options,
  });

/** The file and name under which a tensor of the training process is written. */
function placeOf(name: string, vision: boolean): { file: string; name: string } {
  if (/\.lora_[AB]\./.test(name))
    return { file: 'lora_adapter/adapter_model.safetensors', name: name.replace('.default.', '.') };
  const bare = name.replace(/^base_model\.model\./, '').replace('.base_layer.', '.');
  return { file: 'model.safetensors', name: vision ? toDiskName(bare) : bare };
}

/** Tensors in the dtype of the shards, by the files they belong to. A tied head is not written. */
function placeAll(
  native: Tensors,
  config: { model_type?: string; tie_word_embeddings?: boolean },
): Record<string, Tensors> {
  const files: Record<string, Tensors> = {};
  for (const [name, tensor] of Object.entries(native)) {
    if (name === 'lm_head.weight' && config.tie_word_embeddings) continue;
    const place = placeOf(name, config.model_type === 'qwen2_5_vl');
    const tensors = files[place.file] ?? {};
    files[place.file] = tensors;
    tensors[place.name] = tensor;
  }
  return files;
}

const differencesOfAll = (target: string, files: Record<string, Tensors>): string[] =>
  Object.entries(files).flatMap(([file, tensors]) =>
    differences(join(target, file), tensors).map((tensor) => `${file}: ${tensor}`),
  );

/** Merges, in verl's dtype and in the shards', and compares; a line for each tensor that is wrong. */
async function wrongWith(part: 'fsdp' | 'megatron', name: string): Promise<string[]> {
  const localDir = join(fixtures, part, name);
  const expected = read<Expected>(join(fixtures, 'expected', `${name}.json`));
  const target = join(root, part, name);
  // verl's FSDP merger always writes bfloat16, its Megatron merger the dtype of the shards.
  await merge(localDir, target, { backend: part, dtype: part === 'fsdp' ? 'bf16' : 'keep', verify: true });
  const wrong = differencesOfAll(target, expected.output ?? {});
  const nativePath = join(fixtures, 'expected_native', `${name}.json`);
  if (!existsSync(nativePath)) return expected.output ? wrong : [...wrong, 'nothing to compare with'];
  const kept = join(root, part, `${name}-keep`);
  await merge(localDir, kept, { backend: part, dtype: 'keep' });
  const config = read<{ model_type?: string; tie_word_embeddings?: boolean }>(
    join(localDir, 'huggingface/config.json'),
  );
  return wrong.concat(differencesOfAll(kept, placeAll(read<Tensors>(nativePath), config)));
}

it.each(['fsdp', 'megatron'] as const)('merges every %s checkpoint to the expected tensors', async (part) => {
  const names = readdirSync(join(fixtures, part)).sort();
  const wrong: string[] = [];
  let good = 0;
  for (const name of names) {
    const found = await wrongWith(part, name).catch((error: unknown) => [String(error)]);
    if (found.length === 0) good++;
    wrong.push(...found.map((what) => `${name}: ${what}`));
  }
  console.log(`golden merge/${part}: ${good} of ${names.length}`);
  expect(wrong).toEqual([]);
});

/** Names of all files below a folder that is there. */
const filesBelow = (dir: string): string[] => readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort();

it('refuses every bad checkpoint in one line, or merges it right', async () => {
  const cases = readdirSync(join(fixtures, 'bad')).sort();
  // All are made from this one, so a merge that goes through must give its tensors.
  const good = read<Expected>(join(fixtures, 'expected/qwen2_w2_bf16_tied.json')).output ?? {};
  expect(Object.keys(good).length).toBeGreaterThan(0);
  const before = filesBelow(fixtures);
  const wrong: string[] = [];
  let [refused, mergedRight] = [0, 0];
  for (const name of cases) {
    const parent = join(root, 'bad', name);
    mkdirSync(parent, { recursive: true });
    const target = join(parent, 'out');
    const problem = await merge(join(fixtures, 'bad', name), target).then(
      () => {
        const found = differencesOfAll(target, good);
        if (found.length === 0) mergedRight++;
        return found.length === 0 ? null : `merged with wrong tensors: ${found.join(', ')}`;
      },
      (error: unknown) => {
        if (!(error instanceof InputError)) return `not an InputError: ${String(error)}`;
        if (error.message.includes('\n')) return `more than one line: ${error.message}`;
        if (!error.message.includes(`${name}/`)) return `does not name the file: ${error.message}`;
        if (filesBelow(parent).length > 0) return 'something was left behind';
        refused++;
        return null;
      },
    );
    if (problem !== null) wrong.push(`${name}: ${problem}`);
  }
  console.log(`bad checkpoints: ${refused} refused, ${mergedRight} merged right`);
  console.log(`golden merge/bad: ${refused + mergedRight} of ${cases.length}`);
  expect(wrong).toEqual([]);
  expect(filesBelow(fixtures)).toEqual(before);
  expect(existsSync('PWNED_BY_FIXTURE')).toBe(false);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});

it('names the global and the byte offset of a payload', async () => {
  const messageOf = (name: string) =>
    merge(join(fixtures, 'bad', name), join(root, 'payload')).then(
      () => 'merged',
      (error: Error) => error.message,
    );
  expect(await messageOf('reduce_os_system')).toMatch(/rank_0\.pt: .*at byte 2: global "posix\.system"/);
  expect(await messageOf('reduce_builtins_eval')).toMatch(/rank_1\.pt: .*at byte \d+: global "builtins\.eval"/);
  expect(await messageOf('nested_in_dtensor_spec')).toMatch(/rank_1\.pt: .*at byte \d+: global "posix\.system"/);
  expect(await messageOf('stack_global_getattr')).toMatch(/at byte \d+: global "torch\.serialization\.os\.system"/);
});
