/** @file The WASM SIMD kernel of adamw.wat over a memory. */
import { ADAMW_WASM } from './adamw-wasm.ts';

/** What this package uses of WebAssembly (Node has it; its type package leaves it to the DOM's). */
declare const WebAssembly: {
  Memory: new (descriptor: { initial: number; maximum: number }) => WasmMemory;
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: Record<string, Record<string, unknown>>) => { exports: unknown };
};

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

/** Addresses are byte offsets; counts are multiples of 16 elements. */
export interface AdamwKernel {
  sum_of_squares(gradients: number, count: number): number;
  adamw(
    weights: number,
    expAvg: number,
    expAvgSq: number,
    gradients: number,
    count: number,
    scale: number,
    oneMinusBeta1: number,
    beta2: number,
    oneMinusBeta2: number,
    keep: number,
    rate: number,
    reciprocalSqrtCorrection2: number,
    eps: number,
  ): void;
}

const PAGE = 65536;

/** An unshared memory of at least `bytes` zeros (at most 4 GiB); the pages are only taken from the system as they are touched. */
export function createMemory(bytes: number): WasmMemory {
  const pages = Math.max(1, Math.ceil(bytes / PAGE));
  return new WebAssembly.Memory({ initial: pages, maximum: pages });
}

export function createAdamwKernel(memory: WasmMemory): AdamwKernel {
  const module = new WebAssembly.Module(Buffer.from(ADAMW_WASM, 'base64'));
  return new WebAssembly.Instance(module, { engine: { memory } }).exports as AdamwKernel;
}
