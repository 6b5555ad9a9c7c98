import { GraphBuilder } from '@frame-thinker/graph';
import { expect, it } from 'vitest';
import { describeEngine } from './engine-suite.ts';
import { tfjsEngine } from './engines.ts';
import { describeTensorUse } from './tfjs-suite.ts';

describeEngine(tfjsEngine('wasm'));
describeTensorUse(tfjsEngine('wasm'));

it('refuses more dimensions than the WebAssembly kernels have, by node', async ({ skip }) => {
  const tested = tfjsEngine('wasm');
  const missing = tested.missing();
  if (missing !== undefined) skip(missing);
  const engine = await tested.open();
  const six = new GraphBuilder();
  six.output('y', six.neg(six.input('x', 'float32', [1, 2, 1, 1, 1, 1])));
  await engine.compile(six.build());
  const seven = new GraphBuilder();
  seven.output('y', seven.neg(seven.input('x', 'float32', [1, 2, 1, 1, 1, 1, 1])));
  await expect(engine.compile(seven.build())).rejects.toThrow(/7 dimensions; the WebAssembly backend has at most 6/);
  await engine.release();
});
