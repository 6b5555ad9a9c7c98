/** @file The Engine on TensorFlow.js. */
import { InputError } from '@frame-thinker/core';
import {
  type BoundParameters,
  bindParameters,
  createInferenceParameters,
  createTrainingParameters,
} from '@frame-thinker/engine-common';
import type { Engine, Graph, ParameterSet, Program, Shape } from '@frame-thinker/graph';
import { type Backend, chooseBackend, loadBackend, type Require } from './backends.ts';
import { createProgram } from './program.ts';
import type { Tfjs, TfTensor } from './tfjs.ts';
import { WeightTensors } from './weight-tensors.ts';

export interface TfjsEngineOptions {
  /** Threads of the native binding, one number in a process; WebAssembly has one thread. */
  threads: number;
  /** `auto`: the first of gpu, node and wasm that is there; `capabilities.provider` says which. */
  backend: 'auto' | Backend;
  /** How packages are found, in tests. */
  require?: Require;
}

class TfjsEngine implements Engine {
  readonly capabilities: Engine['capabilities'];
  readonly #tf: Tfjs;
  readonly #name: string;
  readonly #programs = new Set<Program>();
  readonly #weights = new Map<BoundParameters, WeightTensors>();

  constructor({ tf, name, backend, note }: { tf: Tfjs; name: string; backend: Backend; note: string | undefined }) {
    this.#tf = tf;
    this.#name = name;
    this.capabilities = {
      name: 'tfjs',
      provider: backend,
      ...(note === undefined ? {} : { note }),
      fp16: false,
      residentParameters: false,
    };
  }

  /** TensorFlow.js has one current backend a process; that of another engine may be it. */
  #enter(): void {
    // Initialized by the loader, it is current at once; the promise only says so.
    if (this.#tf.getBackend() !== this.#name) void this.#tf.setBackend(this.#name);
  }

  #weightsOf(parameters: BoundParameters): WeightTensors {
    const known = this.#weights.get(parameters) ?? new WeightTensors(this.#tf, parameters);
    this.#weights.set(parameters, known);
    return known;
  }

  async compile(
    graph: Graph,
    { parameters, frozen = false, label = 'graph' }: NonNullable<Parameters<Engine['compile']>[1]> = {},
  ): Promise<Program> {
    const bound = bindParameters(graph, parameters, label);
    this.#enter();
    const baked = new Map<string, TfTensor>();
    if (bound && frozen)
      for (const node of graph.nodes) {
        if (node.op !== 'parameter') continue;
        const { name } = node.attributes as { name: string };
        // A copy: the binding shares the memory of what it is given.
        baked.set(name, this.#tf.keep(this.#tf.tensor(bound.view(name).slice(), node.shape, 'float32')));
      }
    const weight = (name: string, shape: Shape): TfTensor =>
      baked.get(name) ?? this.#weightsOf(bound!).get(name, shape);
    const program = createProgram({
      tf: this.#tf,
      graph,
      label,
      weight,
      enter: () => this.#enter(),
      onRelease: () => {
        this.#programs.delete(program);
        for (const tensor of baked.values()) tensor.dispose();
      },
    });
    this.#programs.add(program);
    return program;
  }

  parameters(...[specs, { training = true } = {}]: Parameters<Engine['parameters']>): ParameterSet {
    const set = training ? createTrainingParameters(specs) : createInferenceParameters(specs);
    const release = set.release.bind(set);
    set.release = () => {
      this.#weights.get(set)?.release();
      this.#weights.delete(set);
      release();
    };
    return set;
  }

  async release(): Promise<void> {
    for (const program of [...this.#programs]) await program.release();
    for (const weights of this.#weights.values()) weights.release();
    this.#weights.clear();
  }
}

/**
 * An engine of the calling thread; `run` blocks it, so give it a thread of its own.
 * @throws InputError when the backend is not there or does not load.
 */
export async function createTfjsEngine({ threads, backend: asked, require }: TfjsEngineOptions): Promise<Engine> {
  if (!Number.isInteger(threads) || threads < 1)
    throw new InputError(`engine threads must be a whole number from 1 on, not ${threads}`);
  const { backend, path, note } = chooseBackend(asked, require);
  const { tf, name } = await loadBackend({ backend, path, threads }, require);
  return new TfjsEngine({ tf, name, backend, note });
}
