export { gradients } from './autodiff.ts';
export { GraphBuilder } from './builder.ts';
export { GraphError } from './error.ts';
export { broadcastShapes, type OpAttributes, type OpName, SHAPE_RULES, sameShape, sizeOf } from './ops.ts';
export type * from './types.ts';
