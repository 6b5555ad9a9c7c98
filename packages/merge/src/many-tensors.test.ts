import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bytesOf, openHfFolder } from '@frame-thinker/checkpoint';
import { type PickleValue, pickleDict } from '@frame-thinker/pickle';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { dtensor, TorchFile } from './testing/torch-file.ts';

const ROOT = join(import.meta.dirname, '../../..');
/** A large mixture of experts: 94 layers of 128 experts of three matrices have 36,096. */
const TENSORS = 40_000;
/** Megabytes that the JavaScript of the merge may hold. */
const MEMORY = 600;

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'many-tensors-'));
  for (const folder of ['actor', 'base']) mkdirSync(join(root, folder));
  writeFileSync(join(root, 'base/config.json'), '{}');
});
afterEach(() => rmSync(root, { recursive: true }));

it('a file of 40,000 DTensors is merged in bounded memory', { timeout: 120_000 }, async () => {
  const file = new TorchFile();
  /** What is the same for all, a mesh among it, is one value. */
  const state = (tensor: PickleValue) => (tensor as unknown as { args: PickleValue[] }).args[3] as PickleValue;
  const slots = (tensor: PickleValue) =>
    (state(tensor) as unknown as { items: { entries: Map<string, PickleValue> }[] }).items[1]!.entries;
  let mesh: PickleValue | undefined;
  const attributes = (value: PickleValue | undefined) =>
    (value as unknown as { state: { entries: Map<string, PickleValue> } }).state.entries;
  const name = (i: number) => `model.layers.${i >> 7}.mlp.experts.${i & 127}.gate_proj.weight`;
  const entries = Array.from({ length: TENSORS }, (_, i) => {
    const tensor = dtensor(file.tensor('I64', [1, 1], bytesOf(BigInt64Array.of(BigInt(i)))), [1, 1], 0, 1, 0);
    const spec = attributes(slots(tensor).get('_spec'));
    mesh ??= spec.get('mesh') as PickleValue;
    spec.set('mesh', mesh);
    return [name(i), tensor] as const;
  });
  file.save(join(root, 'actor/model_world_size_1_rank_0.pt'), pickleDict(entries, true));

  const flags = { 'local-dir': 'actor', 'hf-model-path': 'base', 'target-dir': 'out' };
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [
      `--max-old-space-size=${MEMORY}`,
      ...['--import', 'tsx', join(ROOT, 'packages/cli/src/main.ts'), 'merge'],
      ...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, join(root, value)]),
    ],
    { cwd: ROOT },
  );
  expect(stdout).toContain(`${TENSORS} tensors`);
  const folder = openHfFolder(join(root, 'out'));
  for (const i of [0, 1, 777, TENSORS - 1]) expect(folder.readRaw(name(i)).data).toEqual(BigInt64Array.of(BigInt(i)));
  folder.close();
});
