/** @file A compiled graph: one session. */
import { messageOf, RunError } from '@frame-thinker/core';
import { type DType, GraphError, type Program, sameShape, sizeOf, type Tensor } from '@frame-thinker/graph';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { emptyTensor, type OnnxModel, type Port } from './model.ts';
import type { BoundParameters } from './parameter-views.ts';
import type { Ort } from './runtime.ts';

const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array } as const;
const show = (dtype: DType, shape: readonly number[]): string => `${dtype} [${shape.join(', ')}]`;

export interface ProgramParts {
  ort: Ort;
  session: InferenceSession;
  model: Omit<OnnxModel, 'bytes'>;
  parameters: BoundParameters | undefined;
  label: string;
  /** Called once, at release, before the session goes. */
  onRelease(): void;
}

function checkInput(label: string, name: string, { dtype, shape }: Port, given: Tensor | undefined): Tensor {
  if (!given) throw new GraphError(`${label}: input ${name} is missing; it is ${show(dtype, shape)}`);
  if (given.dtype !== dtype || !sameShape(given.shape, shape))
    throw new GraphError(`${label}: input ${name} must be ${show(dtype, shape)}, is ${show(given.dtype, given.shape)}`);
  if (!(given.data instanceof ARRAYS[dtype]) || given.data.length !== sizeOf(shape))
    throw new GraphError(
      `${label}: input ${name} needs a ${ARRAYS[dtype].name} of ${sizeOf(shape)}, has a ${given.data.constructor.name} of ${given.data.length}`,
    );
  return given;
}

/** Runs the session. Errors of the runtime come back with the program's label. */
export function createProgram({ ort, session, model, parameters, label, onRelease }: ProgramParts): Program {
  const inputOf = (port: Port, data: Tensor['data']): OrtTensor =>
    new ort.Tensor(port.dtype as 'float32', data as Float32Array, port.shape);
  // Views of the weights: made once, at the first run, they see every update.
  let weights: Readonly<Record<string, OrtTensor>> | undefined;
  const viewWeights = (): Record<string, OrtTensor> =>
    Object.fromEntries([...model.parameters].map(([name, port]) => [port.name, inputOf(port, parameters!.view(name))]));
  let live = true;

  return {
    async run(inputs, outputs = [...model.outputs.keys()]) {
      if (!live) throw new GraphError(`${label}: run after release`);
      const unknown = Object.keys(inputs).find((name) => !model.inputs.has(name));
      if (unknown !== undefined)
        throw new GraphError(
          `${label}: no input ${unknown}; it takes ${[...model.inputs.keys()].join(', ') || 'none'}`,
        );
      weights ??= viewWeights();
      const feeds = { ...weights };
      for (const [name, port] of model.inputs) {
        const { data } = checkInput(label, name, port, inputs[name]);
        if (port.fed) feeds[port.name] = inputOf(port, data);
      }
      const wanted = outputs.map((name) => {
        const output = model.outputs.get(name);
        if (!output)
          throw new GraphError(`${label}: no output ${name}; it makes ${[...model.outputs.keys()].join(', ')}`);
        return { name, ...output };
      });
      const ports = new Set(wanted.flatMap(({ port }) => (port === undefined ? [] : [port])));
      let fetched: Readonly<Record<string, OrtTensor>> = {};
      try {
        if (ports.size > 0) fetched = await session.run(feeds, [...ports]);
      } catch (error) {
        throw new RunError(`${label}: ${messageOf(error)}`);
      }
      const results: Record<string, Tensor> = {};
      for (const { name, dtype, shape, port } of wanted) {
        if (port === undefined) {
          results[name] = emptyTensor(dtype, shape);
          continue;
        }
        const data = fetched[port]!.data as Tensor['data'];
        // Two outputs of one value get memory of their own.
        results[name] = { dtype, shape, data: ports.delete(port) ? data : data.slice() };
      }
      return results;
    },
    async release() {
      if (!live) return;
      live = false;
      onRelease();
      await session.release();
    },
  };
}
