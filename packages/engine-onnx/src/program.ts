/** @file A compiled graph: one session. */
import { messageOf, RunError } from '@frame-thinker/core';
import { type BoundParameters, checkInputs, emptyTensor, findOutputs } from '@frame-thinker/engine-common';
import { GraphError, type Program, type Tensor } from '@frame-thinker/graph';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { OnnxModel, Port } from './model.ts';
import type { Ort } from './runtime.ts';

export interface ProgramParts {
  ort: Ort;
  session: InferenceSession;
  model: Omit<OnnxModel, 'bytes'>;
  parameters: BoundParameters | undefined;
  label: string;
  /** Called once, at release, before the session goes. */
  onRelease(): void;
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
      checkInputs(label, model.inputs, inputs);
      weights ??= viewWeights();
      const feeds = { ...weights };
      for (const [name, port] of model.inputs) if (port.fed) feeds[port.name] = inputOf(port, inputs[name]!.data);
      const wanted = findOutputs(label, model.outputs, outputs).map((output, i) => ({ name: outputs[i]!, ...output }));
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
