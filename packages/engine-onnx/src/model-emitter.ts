/** @file Collects nodes and initializers of an ONNX model. */
import { createHash } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import type { DType, Shape, TypedArray } from '@frame-thinker/graph';
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProto_DataType,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './onnx_pb.ts';

const IR_VERSION = 10n;
const OPSETS = [
  { domain: '', version: 18n },
  { domain: 'com.microsoft', version: 1n },
];
/** Protobuf refuses messages from 2 GiB on; the nodes need a little room beside the data. */
const DATA_LIMIT = 2 ** 31 - 2 ** 26;

const ELEMENT: Readonly<Record<DType | 'int64', TensorProto_DataType>> = {
  float32: TensorProto_DataType.FLOAT,
  int32: TensorProto_DataType.INT32,
  bool: TensorProto_DataType.BOOL,
  int64: TensorProto_DataType.INT64,
};

export type Attribute = { int: number } | { ints: readonly number[] } | { float: number } | { string: string };

export interface NodeOptions {
  attributes?: Readonly<Record<string, Attribute>>;
  domain?: 'com.microsoft';
}

function attributeProto(name: string, value: Attribute) {
  const { INT, INTS, FLOAT, STRING } = AttributeProto_AttributeType;
  if ('int' in value) return create(AttributeProtoSchema, { name, type: INT, i: BigInt(value.int) });
  if ('ints' in value) return create(AttributeProtoSchema, { name, type: INTS, ints: value.ints.map(BigInt) });
  if ('float' in value) return create(AttributeProtoSchema, { name, type: FLOAT, f: value.float });
  return create(AttributeProtoSchema, { name, type: STRING, s: Buffer.from(value.string) });
}

function valueInfo(name: string, dtype: DType, shape: Shape): ValueInfoProto {
  const dim = shape.map((d) => ({ value: { case: 'dimValue' as const, value: BigInt(d) } }));
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: 'tensorType', value: { elemType: ELEMENT[dtype], shape: { dim } } } },
  });
}

/** Builds one model; values are named by strings. */
export class ModelEmitter {
  readonly #nodes: NodeProto[] = [];
  readonly #initializers: TensorProto[] = [];
  readonly #known = new Map<string, string>();
  readonly #inputs: ValueInfoProto[] = [];
  readonly #outputs: ValueInfoProto[] = [];
  #bytes = 0;
  /** Prefix of the nodes that are emitted next: which graph node they come from, for messages of the runtime. */
  origin = '';

  /** Adds a node of one output and names that. */
  node(opType: string, inputs: readonly string[], { attributes = {}, domain }: NodeOptions = {}): string {
    const name = `${this.origin}/${opType}#${this.#nodes.length}`;
    const attribute = Object.entries(attributes).map(([key, value]) => attributeProto(key, value));
    this.#nodes.push(
      create(NodeProtoSchema, { name, opType, input: [...inputs], output: [name], attribute, domain: domain ?? '' }),
    );
    return name;
  }

  /** An initializer that nothing else equals; `data` is read when the model is encoded. */
  initializer(name: string, dtype: DType | 'int64', shape: Shape, data: TypedArray | BigInt64Array): string {
    const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength) as Uint8Array<ArrayBuffer>;
    const dims = shape.map(BigInt);
    this.#initializers.push(create(TensorProtoSchema, { name, dims, dataType: ELEMENT[dtype], rawData }));
    this.#bytes += data.byteLength;
    return name;
  }

  /** A constant; equal ones are one initializer. */
  constant(dtype: DType | 'int64', shape: Shape, data: TypedArray | BigInt64Array): string {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const content = bytes.length <= 64 ? bytes.toString() : createHash('sha1').update(bytes).digest('hex');
    const key = `${dtype}[${shape.join()}]${content}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const name = this.initializer(`constant#${this.#initializers.length}`, dtype, shape, data);
    this.#known.set(key, name);
    return name;
  }

  /** A constant int64 list, as shapes and axes are given. */
  int64s(values: readonly number[]): string {
    return this.constant('int64', [values.length], BigInt64Array.from(values, BigInt));
  }

  /** A tensor of equal float32 values. */
  filled(shape: Shape, value: number): string {
    const size = shape.reduce((a, b) => a * b, 1);
    if (size <= 16) return this.constant('float32', shape, new Float32Array(size).fill(value));
    return this.node('Expand', [this.constant('float32', [], Float32Array.of(value)), this.int64s(shape)]);
  }

  input(name: string, dtype: DType, shape: Shape): string {
    this.#inputs.push(valueInfo(name, dtype, shape));
    return name;
  }

  output(name: string, dtype: DType, shape: Shape): void {
    this.#outputs.push(valueInfo(name, dtype, shape));
  }

  /** Bytes of all initializers. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the model can be encoded at all. */
  get fits(): boolean {
    return this.#bytes <= DATA_LIMIT;
  }

  encode(): Uint8Array {
    const model = create(ModelProtoSchema, {
      irVersion: IR_VERSION,
      opsetImport: OPSETS.map((opset) => ({ ...opset })),
      producerName: 'frame-thinker',
      graph: {
        name: 'graph',
        node: this.#nodes,
        initializer: this.#initializers,
        input: this.#inputs,
        output: this.#outputs,
      },
    });
    return toBinary(ModelProtoSchema, model);
  }
}
