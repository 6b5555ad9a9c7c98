/** @file Runs graphs on TensorFlow.js. */
export { type Backend, chooseBackend, findPackage } from './backends.ts';
export { createTfjsEngine, type TfjsEngineOptions } from './engine.ts';
