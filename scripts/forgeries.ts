/**
 * @file `npx tsx scripts/forgeries.ts <records.jsonl> [config.yaml]`: how often each reward pays forged episodes, made from the
 * right tries of an evaluation. Prints a Markdown table.
 */
import { readFileSync } from 'node:fs';
import { FORGERIES, honestEpisode, scoreForgery, type TryRecord } from '@frame-thinker/benchmark';
import { loadConfig } from '@frame-thinker/config';
import { InputError, messageOf } from '@frame-thinker/core';
import { regimesOf } from '@frame-thinker/trainer';

async function main([file, config = 'configs/frame_thinker.yaml']: string[]): Promise<void> {
  if (!file) throw new InputError('usage: npx tsx scripts/forgeries.ts <records.jsonl of an evaluation> [config.yaml]');
  const regimes = regimesOf(loadConfig({ file: config, overrides: [] }).config);
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  const episodes = lines.flatMap((line) => honestEpisode(JSON.parse(line) as TryRecord) ?? []);
  if (episodes.length === 0) throw new InputError(`${file}: no right try that asked for a time and looked there`);
  console.log(`${episodes.length} episodes of ${file}, each forged in ${Object.keys(FORGERIES).length - 1} ways.\n`);
  console.log('| episode | `ccv-v11` pays, % | mean | `ccv` pays, % | mean |\n|---|---|---|---|---|');
  for (const [name, forge] of Object.entries(FORGERIES)) {
    const scores = await Promise.all(
      episodes.map((episode) => scoreForgery(forge(episode), { sample: episode.sample, regimes })),
    );
    const cells = (['original', 'ours'] as const).flatMap((reward) => {
      const totals = scores.map((score) => score[reward]);
      const paid = totals.filter((total) => total > 0).length / totals.length;
      const mean = totals.reduce((x, y) => x + y, 0) / totals.length;
      return [(100 * paid).toFixed(1), mean.toFixed(2)];
    });
    console.log(`| ${[name, ...cells].join(' | ')} |`);
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = error instanceof InputError || (error as NodeJS.ErrnoException).code === 'ENOENT' ? 2 : 1;
}
