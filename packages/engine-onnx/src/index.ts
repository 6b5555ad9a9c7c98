/** @file Runs graphs on onnxruntime-node. */
export { createOnnxEngine, type OnnxEngineOptions } from './engine.ts';
