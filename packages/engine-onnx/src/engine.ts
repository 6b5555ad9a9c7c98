/** @file The Engine on onnxruntime-node. */
import { InputError, messageOf, RunError } from '@frame-thinker/core';
import { bindParameters, createInferenceParameters, createTrainingParameters } from '@frame-thinker/engine-common';
import type { Engine, Graph, ParameterSet, Program } from '@frame-thinker/graph';
import type { InferenceSession } from 'onnxruntime-node';
import { buildModel } from './model.ts';
import { createProgram } from './program.ts';
import { chooseProvider, loadOnnxRuntime, type Ort, type Provider, requireProvider } from './runtime.ts';
import { SessionCache } from './session-cache.ts';

export interface OnnxEngineOptions {
  /** Intra-op threads of every session. */
  threads: number;
  /** `auto`: the first GPU provider that works here, else cpu; `capabilities.provider` says which. */
  provider: 'auto' | Provider;
  /** Whether idle threads spin; faster alone, slower when processes or sessions share cores. Default false. */
  spinning?: boolean;
  /** Folder of optimised models, which make sessions quicker (SessionCache), of the cpu provider; absent: none is kept. */
  modelCache?: string;
  /** Writes a profile of every session to files of this prefix, when it is released. */
  profile?: string;
}

/** `endProfiling` is there, but not in the types. */
interface ProfiledSession {
  handler?: { endProfiling?(): void };
}

class OnnxEngine implements Engine {
  readonly capabilities: Engine['capabilities'];
  readonly #ort: Ort;
  readonly #options: OnnxEngineOptions;
  readonly #provider: Provider;
  readonly #cache: SessionCache | undefined;
  readonly #programs = new Set<Program>();
  #sessions = 0;

  constructor(ort: Ort, provider: Provider, options: OnnxEngineOptions) {
    this.#ort = ort;
    this.#provider = provider;
    this.#options = options;
    const { modelCache } = options;
    if (modelCache !== undefined && provider === 'cpu') this.#cache = new SessionCache(ort, modelCache);
    this.capabilities = { name: 'onnx', provider, fp16: false, residentParameters: false };
  }

  #sessionOptions(label: string): InferenceSession.SessionOptions {
    const { threads, spinning = false, profile } = this.#options;
    const file = `${profile}-${this.#sessions++}-${label.replaceAll(/[^\w.-]+/g, '_')}`;
    return {
      executionProviders: [this.#provider],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionMode: 'sequential',
      graphOptimizationLevel: 'all',
      // The arena pays; the pattern only raises the peak.
      enableMemPattern: false,
      enableCpuMemArena: true,
      // Errors are thrown; the log would only repeat them.
      logSeverityLevel: 4,
      extra: { session: { intra_op: { allow_spinning: spinning ? '1' : '0' } } },
      ...(profile === undefined ? {} : { enableProfiling: true, profileFilePrefix: file }),
    };
  }

  async compile(
    graph: Graph,
    { parameters, frozen = false, label = 'graph' }: NonNullable<Parameters<Engine['compile']>[1]> = {},
  ): Promise<Program> {
    const bound = bindParameters(graph, parameters, label);
    const { bytes, ...model } = buildModel(graph, { label, ...(frozen && bound ? { frozen: bound.view } : {}) });
    let session: InferenceSession;
    try {
      const options = this.#sessionOptions(label);
      const cached = !frozen && this.#options.profile === undefined ? this.#cache : undefined;
      session = await (cached?.open({ bytes, options }) ?? this.#ort.InferenceSession.create(bytes, options));
    } catch (error) {
      throw new RunError(`${label}: ${messageOf(error)}`);
    }
    const program = createProgram({
      ort: this.#ort,
      session,
      model,
      parameters: bound,
      label,
      onRelease: () => {
        this.#programs.delete(program);
        if (this.#options.profile !== undefined) (session as ProfiledSession).handler?.endProfiling?.();
      },
    });
    this.#programs.add(program);
    return program;
  }

  parameters(...[specs, { training = true } = {}]: Parameters<Engine['parameters']>): ParameterSet {
    return training ? createTrainingParameters(specs) : createInferenceParameters(specs);
  }

  async release(): Promise<void> {
    for (const program of [...this.#programs]) await program.release();
  }
}

/**
 * An engine of the calling thread; `run` blocks it, so give it a thread of its own.
 * @throws InputError when onnxruntime-node is missing or the provider does not work here.
 */
export async function createOnnxEngine(options: OnnxEngineOptions): Promise<Engine> {
  if (!Number.isInteger(options.threads) || options.threads < 1)
    throw new InputError(`engine threads must be a whole number from 1 on, not ${options.threads}`);
  const ort = await loadOnnxRuntime();
  const provider = options.provider === 'auto' ? chooseProvider() : options.provider;
  await requireProvider(ort, provider);
  return new OnnxEngine(ort, provider, options);
}
