/** @file Merges once, for the bench. Usage: tsx ours.ts CHECKPOINT OUT. Prints the seconds, without imports, and the peak memory in MB. */
import { join } from 'node:path';
import { mergeCheckpoint } from '@frame-thinker/merge';

const [localDir = '', targetDir = ''] = process.argv.slice(2);
const begin = performance.now();
const { bytes } = await mergeCheckpoint({
  backend: 'fsdp',
  localDir,
  hfModelPath: join(localDir, 'huggingface'),
  targetDir,
  dtype: 'bf16',
});
const seconds = (performance.now() - begin) / 1000;
console.log(JSON.stringify({ seconds, peak_rss_mb: (process.resourceUsage().maxRSS * 1024) / 1e6, bytes }));
