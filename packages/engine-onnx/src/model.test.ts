import { fromBinary } from '@bufbuild/protobuf';
import { InputError } from '@frame-thinker/core';
import { GraphBuilder } from '@frame-thinker/graph';
import { describe, expect, it } from 'vitest';
import { buildModel, type ModelOptions } from './model.ts';
import { type GraphProto, ModelProtoSchema } from './onnx_pb.ts';

function onnxGraph(g: GraphBuilder, options: Partial<ModelOptions> = {}): GraphProto {
  const model = fromBinary(ModelProtoSchema, buildModel(g.build(), { label: 'test', ...options }).bytes);
  return model.graph!;
}
const floats = (raw: Uint8Array): number[] => Array.from(new Float32Array(raw.slice().buffer));

describe('models', () => {
  it('hold equal constants once', () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [100]);
    const mask = () => g.constant(new Float32Array(100).fill(2), [100]);
    g.output('y', g.mul(g.add(x, mask()), mask()));
    g.output('z', g.reshape(g.mul(x, g.constant(new Float32Array(100).fill(3), [100])), [10, 10]));
    const names = onnxGraph(g).initializer.map(({ dims }) => dims.join());
    expect(names).toEqual(['100', '100', '2']);
  });

  it('hold frozen weights transposed for products with their transpose, and as they are only where that is used', () => {
    const frozen = () => Float32Array.of(1, 2, 3, 4, 5, 6);
    const g = new GraphBuilder();
    const w = g.parameter('w', [2, 3]);
    const product = g.matmul(g.input('x', 'float32', [1, 3]), w, { transposeB: true });
    g.output('y', g.add(product, g.matmul(g.input('x2', 'float32', [1, 3]), w, { transposeB: true })));
    const { initializer, input } = onnxGraph(g, { frozen });
    expect(initializer.map(({ name, dims, rawData }) => [name, dims.join(), floats(rawData)])).toEqual([
      ['transposed:w', '3,2', [1, 4, 2, 5, 3, 6]],
    ]);
    expect(input.map(({ name }) => name)).toEqual(['input:x', 'input:x2']);
    g.output('rows', g.gatherRows(w, g.input('ids', 'int32', [2])));
    expect(onnxGraph(g, { frozen }).initializer.map(({ name }) => name)).toEqual(['transposed:w', 'parameter:w']);
  });

  it('take parameters as inputs when they are not frozen, and only what the outputs use', () => {
    const g = new GraphBuilder();
    g.input('unused', 'float32', [4]);
    g.parameter('idle', [4]);
    g.output('y', g.exp(g.parameter('w', [2])));
    const { bytes, inputs, parameters } = buildModel(g.build(), { label: 'test' });
    expect(fromBinary(ModelProtoSchema, bytes).graph!.input.map(({ name }) => name)).toEqual(['parameter:w']);
    expect(inputs.get('unused')).toEqual({ name: 'unused', dtype: 'float32', shape: [4], fed: false });
    expect([...parameters.keys()]).toEqual(['w']);
  });

  it('never scatter by ScatterND, whose sums race', () => {
    const g = new GraphBuilder();
    const ids = g.input('ids', 'int32', [3, 1]);
    g.output('rows', g.scatterAddRows(g.input('x', 'float32', [3, 1, 2]), ids, 5));
    g.output('last', g.scatterAddLast(g.input('y', 'float32', [3, 1]), ids, 5));
    const ops = onnxGraph(g).node.map(({ opType }) => opType);
    expect(ops.filter((op) => op.startsWith('Scatter'))).toEqual(['ScatterElements', 'ScatterElements']);
  });

  it('name nodes after op, node and scope, so that the runtime can say where it failed', () => {
    const g = new GraphBuilder();
    g.scope('layers.3', () => g.scope('attn', () => g.output('y', g.tanh(g.input('x', 'float32', [2])))));
    expect(onnxGraph(g).node[0]!.name).toBe('layers.3.attn/tanh@1/Tanh#0');
  });

  it('refuse frozen weights beyond what a model holds, in one line', () => {
    const g = new GraphBuilder();
    const rows = 2 ** 15;
    g.output('y', g.gatherRows(g.parameter('w', [rows, rows / 2]), g.input('ids', 'int32', [1])));
    // Never touched, so it takes no memory.
    const build = () => buildModel(g.build(), { label: 'decode', frozen: () => new Float32Array((rows * rows) / 2) });
    expect(build).toThrow(InputError);
    expect(build).toThrow(/^decode: 2\.1 GB of frozen weights [^\n]*; compile without frozen$/);
  });
});
