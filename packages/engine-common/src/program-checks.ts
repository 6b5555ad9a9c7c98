/** @file Checks of what a program is given and asked for, with the program's label in every message. */
import {
  type DType,
  GraphError,
  type GraphNode,
  type Shape,
  sameShape,
  sizeOf,
  type Tensor,
  type TypedArray,
} from '@frame-thinker/graph';

const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array } as const;
const show = (dtype: DType, shape: Shape): string => `${dtype} [${shape.join(', ')}]`;

interface Typed {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** How messages name a node. */
export const nodeLabel = ({ op, id, scope }: GraphNode): string => `op ${op} (node ${id}${scope && `, in ${scope}`})`;

export function emptyTensor(dtype: DType, shape: Shape): Tensor {
  return { dtype, shape, data: new ARRAYS[dtype](0) as TypedArray };
}

/** @throws GraphError for an input that is missing, unknown, or of another type, shape or length. */
export function checkInputs(
  label: string,
  wanted: ReadonlyMap<string, Typed>,
  inputs: Readonly<Record<string, Tensor>>,
): void {
  const unknown = Object.keys(inputs).find((name) => !wanted.has(name));
  if (unknown !== undefined)
    throw new GraphError(`${label}: no input ${unknown}; it takes ${[...wanted.keys()].join(', ') || 'none'}`);
  for (const [name, { dtype, shape }] of wanted) {
    const given = inputs[name];
    if (!given) throw new GraphError(`${label}: input ${name} is missing; it is ${show(dtype, shape)}`);
    if (given.dtype !== dtype || !sameShape(given.shape, shape))
      throw new GraphError(
        `${label}: input ${name} must be ${show(dtype, shape)}, is ${show(given.dtype, given.shape)}`,
      );
    if (!(given.data instanceof ARRAYS[dtype]) || given.data.length !== sizeOf(shape))
      throw new GraphError(
        `${label}: input ${name} needs a ${ARRAYS[dtype].name} of ${sizeOf(shape)}, has a ${given.data.constructor.name} of ${given.data.length}`,
      );
  }
}

/** What the program has under each name. @throws GraphError for an output that it does not make. */
export function findOutputs<T>(label: string, made: ReadonlyMap<string, T>, names: readonly string[]): T[] {
  return names.map((name) => {
    const output = made.get(name);
    if (output === undefined)
      throw new GraphError(`${label}: no output ${name}; it makes ${[...made.keys()].join(', ')}`);
    return output;
  });
}
