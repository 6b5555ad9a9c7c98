/** @file A process that renders videos: one JSON line {seed, split, index, path} in, the path as a line out when it is on disk. */
import { createInterface } from 'node:readline';
import { renderScene } from '@frame-thinker/video';
import { type Split, synthVideo } from './synth-scene.ts';

process.on('SIGINT', () => {}); // The parent decides; this process ends with its stdin.

for await (const line of createInterface({ input: process.stdin })) {
  const { seed, split, index, path } = JSON.parse(line) as { seed: number; split: Split; index: number; path: string };
  await renderScene(synthVideo({ seed, split, index }).scene, path);
  process.stdout.write(`${path}\n`);
}
