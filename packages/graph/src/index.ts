export { gradients } from './autodiff.ts';
export { GraphBuilder } from './builder.ts';
export {
  type ConformanceCase,
  compareOutputs,
  conformanceCases,
  type Deviation,
  deviation,
} from './conformance.ts';
export { GraphError } from './error.ts';
export { interpret, type TensorLike } from './interpreter/interpret.ts';
export type { Float64Tensor } from './interpreter/kernel.ts';
export { broadcastShapes, type OpAttributes, type OpName, SHAPE_RULES, sameShape, sizeOf } from './ops.ts';
export { referenceEngine } from './reference-engine.ts';
export type * from './types.ts';
