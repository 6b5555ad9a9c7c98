import { expect, it } from 'vitest';
import { categoryOf } from './categories.ts';

const stack = (...frames: [functionName: string, url: string][]) =>
  frames.map(([functionName, url]) => ({ functionName, url }));
const rollout: [string, string] = ['step', 'file:///x/packages/rollout/src/qwen-policy-model.ts'];

it('names what a stack is busy with by its most special frame, wherever that is', () => {
  expect(categoryOf(stack(['(idle)', '']))).toBeUndefined();
  expect(categoryOf(stack(['(garbage collector)', ''], rollout))).toBe('collecting garbage');
  expect(categoryOf(stack(rollout))).toBe('agent loop and inputs of graphs');
  expect(categoryOf(stack(['append', 'file:///x/packages/rollout/src/kv-cache.ts'], rollout))).toBe(
    'keys and values of the slots',
  );
  const native = '/x/onnxruntime-node@1/node_modules/onnxruntime-node/dist/backend.js';
  expect(categoryOf(stack(['run', native], rollout))).toBe('ONNX Runtime: running graphs');
  expect(categoryOf(stack(['OnnxruntimeSessionHandler', native], rollout))).toBe('ONNX Runtime: making sessions');
  expect(categoryOf(stack(['resolve', 'node:internal/modules/esm/loader']))).toBe('loading modules');
  expect(categoryOf(stack(['now', 'node:internal/timers']))).toBe('everything else');
});
