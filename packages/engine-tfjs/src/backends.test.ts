import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '@frame-thinker/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chooseBackend, type Require } from './backends.ts';
import { createTfjsEngine } from './engine.ts';

let folder: string;
let require: Require;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tfjs-'));
  // Node's own would look in NODE_PATH too.
  const resolve = (name: string): string => {
    const path = join(folder, 'node_modules', name);
    if (!existsSync(path)) throw new Error(`${name} is not there`);
    return path;
  };
  require = Object.assign(createRequire(import.meta.url), { resolve }) as Require;
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Installs a package of one file, with a native binding or without. */
function install(name: string, { code = '', binding = false } = {}): void {
  const dir = join(folder, 'node_modules', name);
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ name, main: 'index.js' }));
  writeFileSync(join(dir, 'index.js'), code);
  if (binding) writeFileSync(join(dir, 'binding.node'), '');
}
const installFinder = () =>
  install('@mapbox/node-pre-gyp', {
    code: "exports.find = (manifest) => require('path').join(require('path').dirname(manifest), 'binding.node');",
  });

describe('choosing a backend', () => {
  it('says what to install when nothing is there', () => {
    for (const backend of ['gpu', 'node', 'wasm'] as const)
      expect(() => chooseBackend(backend, require)).toThrow(
        new RegExp(`^engine.backend ${backend}: @tensorflow/[\\w-]+ is not installed; install it with [^\\n]*$`),
      );
    expect(() => chooseBackend('auto', require)).toThrow(InputError);
    expect(() => chooseBackend('auto', require)).toThrow(
      /^the tfjs engine: .*tfjs-node is not .*; or use engine.name=onnx$/,
    );
  });

  it('takes WebAssembly for auto where there is no binding, and says how to build one', () => {
    installFinder();
    install('@tensorflow/tfjs-node');
    install('@tensorflow/tfjs-node-gpu');
    install('@tensorflow/tfjs-backend-wasm');
    const built = (command: string) => `has no native binding; ${command} builds it`;
    expect(chooseBackend('auto', require)).toEqual({
      backend: 'wasm',
      path: join(folder, 'node_modules/@tensorflow/tfjs-backend-wasm'),
      note: `@tensorflow/tfjs-node ${built('scripts/setup_tfjs_node.sh')}`,
    });
    expect(() => chooseBackend('node', require)).toThrow(built('scripts/setup_tfjs_node.sh'));
    expect(() => chooseBackend('gpu', require)).toThrow(built('scripts/setup_tfjs_node.sh --gpu'));
  });

  it('says why a GPU that is there, of whatever number, is passed over', () => {
    installFinder();
    install('@tensorflow/tfjs-node', { binding: true });
    install('@tensorflow/tfjs-node-gpu', { binding: true, code: 'throw new Error("no driver")' });
    const devices = join(folder, 'dev');
    mkdirSync(devices);
    expect(chooseBackend('auto', require, devices).note).toBeUndefined();
    writeFileSync(join(devices, 'nvidia3'), '');
    expect(chooseBackend('auto', require, devices)).toMatchObject({
      backend: 'node',
      note: expect.stringMatching(/^no NVIDIA GPU that TensorFlow can use/),
    });
    rmSync(join(folder, 'node_modules/@tensorflow/tfjs-node-gpu/binding.node'));
    expect(chooseBackend('auto', require, devices).note).toMatch(/tfjs-node-gpu has no native binding/);
  });

  it('takes the CPU for auto where the binding for GPUs finds none', () => {
    installFinder();
    install('@tensorflow/tfjs-node', { binding: true });
    install('@tensorflow/tfjs-node-gpu', { binding: true });
    const { backend, note } = chooseBackend('auto', require);
    expect({ backend, note }).toEqual({ backend: 'node', note: undefined });
    expect(() => chooseBackend('gpu', require)).toThrow(/^engine.backend gpu: no NVIDIA GPU that TensorFlow can use/);
  });

  it('refuses what does not load, in one line', async () => {
    installFinder();
    install('@tensorflow/tfjs-node', {
      binding: true,
      code: "throw new Error('libtensorflow_cc.so.2: not found\\nat x')",
    });
    const opened = createTfjsEngine({ threads: 1, backend: 'node', require });
    await expect(opened).rejects.toThrow(InputError);
    await expect(opened).rejects.toThrow(/^engine.backend node does not load: libtensorflow_cc.so.2: not found$/);
  });

  it('loads the binding with float32 products, sums that repeat and memory that others can have too', async () => {
    const names = ['NVIDIA_TF32_OVERRIDE', 'TF_DETERMINISTIC_OPS', 'TF_FORCE_GPU_ALLOW_GROWTH'];
    for (const name of names) delete process.env[name];
    installFinder();
    install('@tensorflow/tfjs-node', {
      binding: true,
      code: `throw new Error(${JSON.stringify(names)}.map((name) => process.env[name]).join())`,
    });
    const opened = createTfjsEngine({ threads: 1, backend: 'node', require });
    await expect(opened).rejects.toThrow(/^engine.backend node does not load: 0,1,true$/);
  });

  it('refuses a thread count that is none', async () => {
    await expect(createTfjsEngine({ threads: 0, backend: 'wasm' })).rejects.toThrow(/threads .* not 0/);
  });
});
