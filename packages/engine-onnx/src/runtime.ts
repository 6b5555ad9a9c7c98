/** @file Finds onnxruntime-node and the execution providers that work here. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { InputError, messageOf } from '@frame-thinker/core';
import { ModelEmitter } from './model-emitter.ts';

export type Ort = typeof import('onnxruntime-node');
export type Provider = 'cpu' | 'webgpu' | 'cuda';

const require = createRequire(import.meta.url);
const PROBE_MS = 60_000;

/** @throws InputError when the optional dependency is not installed, or does not load. */
export async function loadOnnxRuntime(load: () => Promise<Ort> = () => import('onnxruntime-node')): Promise<Ort> {
  try {
    const module = (await load()) as Ort & { default?: Ort };
    return module.default ?? module;
  } catch (error) {
    throw new InputError(
      `onnxruntime-node does not load (${firstLine(error)}); install it with "pnpm install" without --no-optional, on Linux x64/arm64, macOS or Windows`,
    );
  }
}

/** The first line, without the place in the runtime's source and the condition that it often starts with. */
function firstLine(error: unknown): string {
  const [line = ''] = messageOf(error).split('\n');
  return line.replace(/^\/\S+\.cc:\d+ .* was false\.\s*/, '').trim();
}

/** A model of one product of two 2 x 2 matrices. */
function probeModel(): Uint8Array {
  const emit = new ModelEmitter();
  emit.input('x', 'float32', [2, 2]);
  emit.output(emit.node('MatMul', ['x', 'x']), 'float32', [2, 2]);
  return emit.encode();
}

/** Runs a small product on a provider. @throws InputError in one line when it does not work here. */
export async function requireProvider(ort: Ort, provider: Provider): Promise<void> {
  try {
    const session = await ort.InferenceSession.create(probeModel(), {
      executionProviders: [provider],
      logSeverityLevel: 4,
    });
    const results = await session.run({ x: new ort.Tensor('float32', Float32Array.of(1, 2, 3, 4), [2, 2]) });
    const [output] = Object.values(results);
    await session.release();
    const product = Array.from(output?.data as Float32Array);
    if (product.join() !== '7,10,15,22') throw new Error(`a 2 x 2 product gave ${product}`);
  } catch (error) {
    throw new InputError(`provider ${provider} does not work here: ${firstLine(error)}; use cpu or auto`);
  }
}

/** Whether the machine shows any sign of what a provider needs; cheap, and quiet where there is no GPU. */
function looksPresent(provider: 'cuda' | 'webgpu'): boolean {
  if (provider === 'cuda') {
    if (process.platform !== 'linux') return false;
    const folder = dirname(dirname(require.resolve('onnxruntime-node')));
    const library = join(folder, `bin/napi-v6/linux/${process.arch}/libonnxruntime_providers_cuda.so`);
    return existsSync('/dev/nvidia0') && existsSync(library);
  }
  if (process.platform !== 'linux') return true;
  return ['/dev/dri/renderD128', '/dev/nvidia0', '/dev/dxg'].some((device) => existsSync(device));
}

const CHILD = `
const [runtime, provider, model] = process.argv.slice(1);
const ort = require(runtime);
ort.InferenceSession.create(Buffer.from(model, 'base64'), { executionProviders: [provider], logSeverityLevel: 4 })
  .then((session) => session.run({ x: new ort.Tensor('float32', Float32Array.of(1, 2, 3, 4), [2, 2]) }))
  .then((results) => process.exit(Array.from(Object.values(results)[0].data).join() === '7,10,15,22' ? 0 : 1))
  .catch(() => process.exit(1));`;

/** Tries a provider in a process of its own: GPU drivers can take their process with them. */
export function worksInChild(provider: Provider): boolean {
  const model = Buffer.from(probeModel()).toString('base64');
  const args = ['-e', CHILD, require.resolve('onnxruntime-node'), provider, model];
  return spawnSync(process.execPath, args, { stdio: 'ignore', timeout: PROBE_MS }).status === 0;
}

/** The provider that `auto` means on this machine: the first GPU provider that works, else cpu. */
export function chooseProvider(): Provider {
  const gpu = (['cuda', 'webgpu'] as const).find((provider) => looksPresent(provider) && worksInChild(provider));
  return gpu ?? 'cpu';
}
