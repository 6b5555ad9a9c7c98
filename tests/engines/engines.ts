/** @file The engines that suites run on, and what each needs. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { createOnnxEngine } from '@frame-thinker/engine-onnx';
import { type Backend, createTfjsEngine, findPackage } from '@frame-thinker/engine-tfjs';
import type { Engine } from '@frame-thinker/graph';
import type { TestContext } from 'vitest';

export interface TestedEngine {
  readonly title: string;
  open(): Promise<Engine>;
  /** What is missing where the engine can't be had. */
  missing(): string | undefined;
  /** Skips the test there. */
  require(context: TestContext): void;
}

function tested(parts: Omit<TestedEngine, 'require'>): TestedEngine {
  return {
    ...parts,
    require: (context) => {
      const missing = parts.missing();
      if (missing !== undefined) context.skip(`needs ${missing}`);
    },
  };
}

const requireOf = (ownPackage: string): NodeJS.Require => createRequire(fileURLToPath(import.meta.resolve(ownPackage)));

function isInstalled(ownPackage: string, dependency: string): boolean {
  try {
    requireOf(ownPackage).resolve(dependency);
    return true;
  } catch {
    return false;
  }
}

export function onnxEngine(threads = 1): TestedEngine {
  return tested({
    title: 'onnx',
    open: () => createOnnxEngine({ threads, provider: 'cpu' }),
    missing: () => (isInstalled('@frame-thinker/engine-onnx', 'onnxruntime-node') ? undefined : 'onnxruntime-node'),
  });
}

/** `node` and `gpu`: the native bindings, which scripts/setup_tfjs_node.sh builds. */
export function tfjsEngine(backend: Backend, threads = 1): TestedEngine {
  return tested({
    title: `tfjs on ${backend}`,
    open: () => createTfjsEngine({ threads, backend }),
    missing: () => {
      const found = findPackage(backend);
      return found.ok ? undefined : found.why;
    },
  });
}

/** The native binding that tests/tfjs runs on: the CPU's, or the GPU's with FT_TFJS_BACKEND=gpu. */
export function nativeTfjsEngine(threads = 1): TestedEngine {
  const asked = process.env.FT_TFJS_BACKEND ?? 'node';
  if (asked !== 'node' && asked !== 'gpu') throw new Error(`FT_TFJS_BACKEND=${asked}: expected node or gpu`);
  return tfjsEngine(asked, threads);
}

/** The TensorFlow.js of engine-tfjs: one a process, whatever the backend. */
export function tensorCount(): number {
  const core = requireOf('@frame-thinker/engine-tfjs')('@tensorflow/tfjs-core') as { memory(): { numTensors: number } };
  return core.memory().numTensors;
}
