/** @file Picks the engine that a worker is started with. The other one's packages need not be there. */
import { cacheDirectory } from '@frame-thinker/core';
import type { Engine } from '@frame-thinker/graph';
import type { WorkerInit } from '@frame-thinker/worker-pool';

/** @throws InputError when the engine, its provider or its backend is not usable here. */
export async function openEngine(settings: WorkerInit['engine']): Promise<Engine> {
  if (settings.name === 'tfjs') {
    const { createTfjsEngine } = await import('@frame-thinker/engine-tfjs');
    return createTfjsEngine({ threads: settings.threads, backend: settings.backend });
  }
  const { createOnnxEngine } = await import('@frame-thinker/engine-onnx');
  return createOnnxEngine({
    threads: settings.threads,
    provider: settings.provider,
    modelCache: cacheDirectory('onnx-models'),
  });
}
