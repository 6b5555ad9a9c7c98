/** @file Finds TensorFlow.js and the backends that work here. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import util from 'node:util';
import { InputError, messageOf, RunError } from '@frame-thinker/core';
import type { Tfjs } from './tfjs.ts';

export type Backend = 'gpu' | 'node' | 'wasm';
/** Resolves and loads packages as this package would. */
export type Require = ((name: string) => unknown) & { resolve(name: string): string };

const PACKAGES = {
  gpu: '@tensorflow/tfjs-node-gpu',
  node: '@tensorflow/tfjs-node',
  wasm: '@tensorflow/tfjs-backend-wasm',
} as const;
const BUILD = { gpu: 'scripts/setup_tfjs_node.sh --gpu', node: 'scripts/setup_tfjs_node.sh' } as const;
const PROBE_MS = 120_000;
const ownRequire = createRequire(import.meta.url);

/** The binding calls two functions that Node 24 no longer has, and of which Node 22 warns at each process. */
function restoreUtil(): void {
  Object.assign(util, { isNullOrUndefined: (x: unknown) => x === null || x === undefined, isArray: Array.isArray });
}

/** Where a package is, or why it is not usable: not installed, or without its native binding. */
export function findPackage(
  backend: Backend,
  require: Require = ownRequire,
): { ok: true; path: string } | { ok: false; why: string } {
  const name = PACKAGES[backend];
  let manifest: string;
  try {
    manifest = require.resolve(`${name}/package.json`);
  } catch {
    return { ok: false, why: `${name} is not installed; install it with "pnpm install" without --no-optional` };
  }
  const path = dirname(manifest);
  if (backend === 'wasm') return { ok: true, path };
  const { find } = createRequire(manifest)('@mapbox/node-pre-gyp') as { find(manifest: string): string };
  if (!existsSync(find(manifest)))
    return { ok: false, why: `${name} has no native binding; ${BUILD[backend]} builds it` };
  return { ok: true, path };
}

/** Prints the device: exit code 0 when a small product is right. */
const CHILD = `
const util = require('node:util');
Object.assign(util, { isNullOrUndefined: (x) => x == null, isArray: Array.isArray });
const tf = require(process.argv[1]);
const product = tf.matMul(tf.tensor2d([[1, 2]]), tf.tensor2d([[3], [4]])).dataSync()[0];
process.exit(product === 11 && tf.backend().isUsingGpuDevice ? 0 : 1);`;

/** Whether the machine, or this container of it, has an NVIDIA GPU, of whatever number. */
const hasGpu = (devices: string): boolean =>
  existsSync(devices) && readdirSync(devices).some((name) => /^nvidia\d+$/.test(name));

/** Tries the GPU in a process of its own: drivers can take their process with them, and a loaded binding stays. */
function gpuWorks(path: string, devices: string): boolean {
  if (!hasGpu(devices)) return false;
  return spawnSync(process.execPath, ['-e', CHILD, path], { stdio: 'ignore', timeout: PROBE_MS }).status === 0;
}

const NO_GPU = 'no NVIDIA GPU that TensorFlow can use (it needs the driver, CUDA 12 and cuDNN 9 on LD_LIBRARY_PATH)';

/**
 * The backend that is asked for; `auto` is the first of gpu, node and wasm that is there.
 * @returns with `note`: why a faster backend than the chosen one was passed over, for auto.
 * @throws InputError in one line when it is not there.
 */
export function chooseBackend(
  asked: 'auto' | Backend,
  require: Require = ownRequire,
  devices = '/dev',
): { backend: Backend; path: string; note?: string } {
  const passed: string[] = [];
  for (const backend of ['gpu', 'node', 'wasm'] as const) {
    if (asked !== 'auto' && asked !== backend) continue;
    const found = findPackage(backend, require);
    const why = !found.ok ? found.why : backend === 'gpu' && !gpuWorks(found.path, devices) ? NO_GPU : undefined;
    if (found.ok && why === undefined)
      return { backend, path: found.path, ...(passed.length > 0 ? { note: passed.join('; ') } : {}) };
    if (asked !== 'auto')
      throw new InputError(`engine.backend ${asked}: ${why}; use another backend, or engine.name=onnx`);
    // That a machine has no GPU is no news.
    if (backend !== 'gpu' || hasGpu(devices)) passed.push(why!);
  }
  throw new InputError(`the tfjs engine: ${passed.join('; ')}; or use engine.name=onnx`);
}

/** Threads are set for the process, before the binding is loaded. */
let loadedThreads: number | undefined;

function setThreads(threads: number): void {
  if (loadedThreads !== undefined && loadedThreads !== threads)
    throw new RunError(
      `TensorFlow was loaded with ${loadedThreads} threads in this process, which is for good; not ${threads}`,
    );
  loadedThreads = threads;
  // Variables that are set already are the user's wish.
  process.env.TF_NUM_INTRAOP_THREADS ??= String(threads);
  process.env.TF_NUM_INTEROP_THREADS ??= '1';
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '3';
  // Float32 products in float32, also on a GPU: TF32 moves log-probs by 3e-2.
  process.env.NVIDIA_TF32_OVERRIDE ??= '0';
  // Sums of rows in one order: a GPU's atomic additions give other last bits in each run.
  process.env.TF_DETERMINISTIC_OPS ??= '1';
  // Workers may share a GPU: its memory as it is needed, where TensorFlow would take nearly all of it at its start.
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= 'true';
}

/** Loads TensorFlow.js with a backend and makes it the current one. `name` is what TensorFlow.js calls it. */
export async function loadBackend(
  { backend, path, threads }: { backend: Backend; path: string; threads: number },
  require: Require = ownRequire,
): Promise<{ tf: Tfjs; name: string }> {
  const name = backend === 'wasm' ? 'wasm' : 'tensorflow';
  try {
    if (backend !== 'wasm') {
      restoreUtil();
      setThreads(threads);
    }
    const module = require(path) as Tfjs;
    const tf = backend === 'wasm' ? (createRequire(`${path}/package.json`)('@tensorflow/tfjs-core') as Tfjs) : module;
    tf.enableProdMode();
    if (!(await tf.setBackend(name))) throw new Error(`backend ${name} does not start`);
    return { tf, name };
  } catch (error) {
    throw error instanceof RunError
      ? error
      : new InputError(`engine.backend ${backend} does not load: ${messageOf(error).split('\n')[0]}`);
  }
}
