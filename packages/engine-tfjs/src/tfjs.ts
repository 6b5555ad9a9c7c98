/** @file What this package uses of TensorFlow.js: its own types are large, and the packages are optional. */
import type { TypedArray } from '@frame-thinker/graph';

export interface TfTensor {
  readonly shape: readonly number[];
  dataSync(): TypedArray;
  dispose(): void;
}

type DType = 'float32' | 'int32' | 'bool';
type Shape = readonly number[];
type Unary = (x: TfTensor) => TfTensor;
type Binary = (a: TfTensor, b: TfTensor) => TfTensor;
type Reduction = (x: TfTensor, axes: Shape, keepDims: boolean) => TfTensor;

export interface Tfjs {
  /** Disposes what `run` makes, but for its result and what is kept. */
  tidy<T extends TfTensor | undefined>(run: () => T): T;
  memory(): { numTensors: number; numBytes: number };
  setBackend(name: string): Promise<boolean>;
  getBackend(): string;
  enableProdMode(): void;
  keep<T extends TfTensor>(tensor: T): T;
  tensor(values: TypedArray, shape: Shape, dtype: DType): TfTensor;
  fill(shape: Shape, value: number, dtype: DType): TfTensor;

  neg: Unary;
  exp: Unary;
  log: Unary;
  sqrt: Unary;
  reciprocal: Unary;
  sigmoid: Unary;
  erf: Unary;
  tanh: Unary;
  square: Unary;
  add: Binary;
  sub: Binary;
  mul: Binary;
  div: Binary;
  maximum: Binary;
  minimum: Binary;
  lessEqual: Binary;
  equal: Binary;
  notEqual: Binary;
  where(condition: TfTensor, a: TfTensor, b: TfTensor): TfTensor;
  cast(x: TfTensor, dtype: DType): TfTensor;
  reshape(x: TfTensor, shape: Shape): TfTensor;
  transpose(x: TfTensor, permutation: Shape): TfTensor;
  slice(x: TfTensor, begin: Shape, size: Shape): TfTensor;
  concat(parts: readonly TfTensor[], axis: number): TfTensor;
  pad(x: TfTensor, paddings: readonly (readonly [number, number])[]): TfTensor;
  tile(x: TfTensor, repetitions: Shape): TfTensor;
  sum: Reduction;
  mean: Reduction;
  max: Reduction;
  matMul(a: TfTensor, b: TfTensor, transposeA: boolean, transposeB: boolean): TfTensor;
  gather(table: TfTensor, indices: TfTensor, axis: number): TfTensor;
  scatterND(indices: TfTensor, updates: TfTensor, shape: Shape): TfTensor;
  softmax: Unary;
}
