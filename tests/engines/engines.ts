/** @file The engines that suites run on, and what each needs. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { createOnnxEngine } from '@frame-thinker/engine-onnx';
import { createTfjsEngine, findPackage } from '@frame-thinker/engine-tfjs';
import type { Engine } from '@frame-thinker/graph';
import type { TestContext } from 'vitest';

export interface TestedEngine {
  readonly title: string;
  open(): Promise<Engine>;
  /** Skips the test, with what is missing, where the engine can't be had. */
  require(context: TestContext): void;
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
  return {
    title: 'onnx',
    open: () => createOnnxEngine({ threads, provider: 'cpu' }),
    require: (context) => {
      if (!isInstalled('@frame-thinker/engine-onnx', 'onnxruntime-node')) context.skip('needs onnxruntime-node');
    },
  };
}

/** `node`: the native binding, which scripts/setup_tfjs_node.sh builds. */
export function tfjsEngine(backend: 'node' | 'wasm', threads = 1): TestedEngine {
  return {
    title: `tfjs on ${backend}`,
    open: () => createTfjsEngine({ threads, backend }),
    require: (context) => {
      const found = findPackage(backend);
      if (!found.ok) context.skip(`needs ${found.why}`);
    },
  };
}

/** The TensorFlow.js of engine-tfjs: one a process, whatever the backend. */
export function tensorCount(): number {
  const core = requireOf('@frame-thinker/engine-tfjs')('@tensorflow/tfjs-core') as { memory(): { numTensors: number } };
  return core.memory().numTensors;
}
