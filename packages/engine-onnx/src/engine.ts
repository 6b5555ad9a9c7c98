/** @file The Engine on onnxruntime-node. */
import type { Engine } from '@frame-thinker/graph';

export type Provider = 'auto' | 'cpu' | 'webgpu' | 'cuda';

export interface OnnxEngineOptions {
  /** Intra-op threads of every session. */
  threads: number;
  /** `auto`: a GPU provider if one works here, else cpu; `capabilities.provider` says which. */
  provider: Provider;
  /** Whether idle threads spin; faster alone, slower when processes share cores. Default false. */
  spinning?: boolean;
  /** Prefix of the profile files to write, one a session. */
  profile?: string;
}

/** An engine of the calling thread; `run` blocks it, so give it a thread of its own. */
export async function createOnnxEngine(_options: OnnxEngineOptions): Promise<Engine> {
  throw new Error('engine-onnx is not there yet');
}
