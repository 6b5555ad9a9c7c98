/** @file Each engine where the other one's packages are not there: in a copy of this tree that links all others. */
import { cpSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import { onnxEngine, tfjsEngine } from '../engines/engines.ts';
import { runVitest } from './vitest-run.ts';

const folder = mkdtempSync(join(tmpdir(), 'ft-one-engine-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach((context) => {
  onnxEngine().require(context);
  tfjsEngine('node').require(context);
});

const COPIED = [
  'packages',
  'tests',
  'configs',
  'scripts',
  'package.json',
  'tsconfig.json',
  'tsconfig.base.json',
  'vitest.config.ts',
];
const LINKED = ['examples', 'data', 'tests/fixtures'];

/** A copy without some dependencies of a package. Its own packages are copies; what they depend on is linked. */
function treeWithout(name: string, ownPackage: string, dependencies: readonly string[]): string {
  const tree = join(folder, name);
  mkdirSync(join(tree, 'node_modules/@frame-thinker'), { recursive: true });
  for (const part of COPIED)
    cpSync(join(root, part), join(tree, part), {
      recursive: true,
      verbatimSymlinks: true,
      filter: (path) => !LINKED.includes(path.slice(root.length + 1)),
    });
  for (const part of LINKED) symlinkSync(join(root, part), join(tree, part));
  const modules = join(root, 'node_modules');
  for (const entry of [
    ...readdirSync(modules),
    ...readdirSync(join(modules, '@frame-thinker')).map((p) => `@frame-thinker/${p}`),
  ]) {
    const path = join(modules, entry);
    // Our packages are linked within the tree: those links are copied as they are.
    if (lstatSync(path).isSymbolicLink() && readlinkSync(path).includes('packages/'))
      symlinkSync(readlinkSync(path), join(tree, 'node_modules', entry));
    else if (entry !== '@frame-thinker' && !entry.startsWith('.v'))
      symlinkSync(path, join(tree, 'node_modules', entry));
  }
  for (const dependency of dependencies)
    rmSync(join(tree, 'packages', ownPackage, 'node_modules', dependency), { recursive: true, force: true });
  return tree;
}

const train = (tree: string, ...overrides: string[]) =>
  runCommand(
    [
      ...['train', '--config', join(tree, 'configs/debug/tiny.yaml'), 'trainer.total_training_steps=1'],
      ...[
        'trainer.val_before_train=false',
        'data.val_max_samples=1',
        'trainer.save_freq=-1',
        'trainer.resume_mode=disable',
      ],
      ...[`trainer.default_local_dir=${join(tree, 'run')}`, ...overrides],
    ],
    { tree },
  );

describe('without onnxruntime-node', () => {
  let tree: string;
  beforeAll(() => {
    tree = treeWithout('no-onnx', 'engine-onnx', ['onnxruntime-node']);
  });

  it('the tfjs suite, the golden tests of Qwen and of an update pass', async () => {
    const { passed, skipped, failed } = await runVitest({
      tree,
      args: ['--project', 'tfjs', 'tests/tfjs/engine.test.ts', 'tests/tfjs/golden.test.ts'],
    });
    expect({ failed, skipped }).toEqual({ failed: [], skipped: 0 });
    expect(passed).toBeGreaterThan(400);
    // It is really gone.
    const onnx = await runVitest({ tree, args: ['--project', 'unit', 'tests/engines/onnx.test.ts'] });
    expect(onnx).toMatchObject({ failed: [], passed: 0 });
    expect(onnx.skipped).toBeGreaterThan(380);
  });

  it('a training step runs, engine.name=onnx is refused in one line, and doctor says so', async () => {
    const trained = await train(tree, 'engine.name=tfjs');
    expect(trained.lines.join('\n')).toContain('training is complete: 1 step');
    expect(trained.code).toBe(0);
    const refused = await train(tree);
    expect(refused.code).toBe(2);
    expect(refused.lines.at(-1)).toMatch(/onnxruntime-node does not load \(.*\); install it/);
    const doctor = (await runCommand(['doctor'], { tree })).lines.join('\n');
    expect(doctor).toMatch(/gap +ONNX Runtime +onnxruntime-node is not installed\n +→ .*engine\.name=tfjs/);
    expect(doctor).toMatch(/ok +TensorFlow\.js +TensorFlow [\d.]+ on the CPU/);
  });
});

describe('without TensorFlow.js', () => {
  let tree: string;
  beforeAll(() => {
    tree = treeWithout('no-tfjs', 'engine-tfjs', ['@tensorflow']);
  });

  it('the onnx suite, the golden tests of Qwen and of an update pass', async () => {
    for (const [project, file] of [
      ['unit', 'tests/engines/onnx.test.ts'],
      ['golden', 'tests/golden/qwen-model.test.ts'],
      ['golden', 'tests/golden/grpo-update.test.ts'],
    ] as const) {
      const { passed, skipped, failed } = await runVitest({ tree, args: ['--project', project, file] });
      expect({ failed, skipped }, file).toEqual({ failed: [], skipped: 0 });
      expect(passed, file).toBeGreaterThan(5);
    }
    const tfjs = await runVitest({ tree, args: ['--project', 'unit', 'tests/engines/tfjs-wasm.test.ts'] });
    expect(tfjs).toMatchObject({ failed: [], passed: 0 });
  });

  it('a training step runs, engine.name=tfjs is refused in one line, and doctor says so', async () => {
    const trained = await train(tree);
    expect(trained.lines.join('\n')).toContain('training is complete: 1 step');
    expect(trained.code).toBe(0);
    const refused = await train(tree, 'engine.name=tfjs');
    expect(refused.code).toBe(2);
    expect(refused.lines.at(-1)).toMatch(/tfjs engine: @tensorflow\/tfjs-node is not installed.*engine\.name=onnx/);
    const doctor = (await runCommand(['doctor'], { tree })).lines.join('\n');
    expect(doctor).toMatch(/gap +TensorFlow\.js +the tfjs engine: @tensorflow\/tfjs-node is not installed/);
    expect(doctor).toMatch(/ok +ONNX Runtime/);
  });
});
