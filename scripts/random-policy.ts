/**
 * @file `npx tsx scripts/random-policy.ts DIR [HIDDEN LAYERS]`: an untrained policy of that size in DIR, as a Hugging Face folder, for
 * measuring what grows with the number of parameters.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tinyPolicyFiles } from '@frame-thinker/benchmark';
import { writeHfFolder } from '@frame-thinker/checkpoint';
import { writeFileAtomic } from '@frame-thinker/core';
import { initialise, parameterSpecs, parseConfig, toDiskName } from '@frame-thinker/qwen-vl';

const [dir, hidden = '512', layers = '8'] = process.argv.slice(2);
if (dir === undefined || !(Number(hidden) % 64 === 0 && Number(hidden) > 0 && Number(layers) > 0)) {
  console.error('random-policy: expected DIR [HIDDEN LAYERS], HIDDEN a multiple of 64');
  process.exit(2);
}
const { config, files } = tinyPolicyFiles({ hidden: Number(hidden), layers: Number(layers) });
const sources = mkdtempSync(join(tmpdir(), 'random-policy-'));
try {
  for (const [name, text] of Object.entries(files)) writeFileAtomic(join(sources, name), text);
  const parsed = parseConfig(config);
  const weights = initialise(parsed, 1, 0.02);
  const tensors = parameterSpecs(parsed).map(({ name, shape }) => ({
    ...{ name: toDiskName(name), shape, read: () => weights.get(name)! },
  }));
  await writeHfFolder({ dir, tensors, dtype: 'fp32', copyFrom: sources });
  console.log(`${dir}: ${[...weights.values()].reduce((sum, { length }) => sum + length, 0)} parameters`);
} finally {
  rmSync(sources, { recursive: true, force: true });
}
